# Kernels: every native/ops/*/*.cu is compiled by nvcc to PTX and machine code, which a generated source embeds into bireal_ops.
# Files named *_sm80.cu need compute capability 8.0, and *_sm80to90.cu are of no use above 9.0. Without nvcc the list of images is empty.
set(CUDA_TARGETS 75 80 86 89 90 100 120)
set(CUDA_IMAGES_DIR "${CMAKE_SOURCE_DIR}/target/cuda" CACHE PATH
    "Compiled kernels; one folder for every build of this tree, because nvcc takes minutes for all targets")
set(CUDA_IMAGES_SOURCE "${CUDA_IMAGES_DIR}/embedded_images.cpp")
file(MAKE_DIRECTORY "${CUDA_IMAGES_DIR}")
find_program(NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" /usr/local/cuda/bin DOC "nvcc of the CUDA toolkit 13.0")
set(CUDA_NAMES "")
set(CUDA_OUTPUTS "")
set(CUDA_SYMBOLS "")
set(CUDA_DECLARATIONS "")
set(CUDA_ENTRIES "")
set(CUDA_TOOLKIT_VERSION 0)
if(NVCC)
  execute_process(COMMAND "${NVCC}" --version OUTPUT_VARIABLE nvcc_says RESULT_VARIABLE nvcc_result)
  if(NOT nvcc_result EQUAL 0 OR NOT nvcc_says MATCHES "release ([0-9]+)\\.([0-9]+)")
    message(FATAL_ERROR "${NVCC} --version does not name its release: ${nvcc_says}")
  endif()
  get_filename_component(nvcc_folder "${NVCC}" DIRECTORY)
  find_program(PTXAS ptxas HINTS "${nvcc_folder}" /usr/local/cuda/bin DOC "ptxas of the same toolkit" REQUIRED)
  math(EXPR CUDA_TOOLKIT_VERSION "1000 * ${CMAKE_MATCH_1} + 10 * ${CMAKE_MATCH_2}")
  file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS native/ops/*/*.cu)
  file(GLOB CUDA_HEADERS CONFIGURE_DEPENDS native/cuda/*.cuh native/cuda/row_slices.h native/ops/*/*_params.h native/ops/*/*.cuh)
  foreach(source ${CUDA_KERNELS})
    get_filename_component(name "${source}" NAME_WE)
    set(minimum_sm 75)
    set(maximum_sm 999)
    set(relabel_to 6.4)
    if(name MATCHES "_sm80(to([0-9]+))?$")
      set(minimum_sm 80)
      set(relabel_to 7.1)
      if(CMAKE_MATCH_2)
        set(maximum_sm ${CMAKE_MATCH_2})
      endif()
    endif()
    set(stem "${CUDA_IMAGES_DIR}/${name}")
    add_custom_command(
      OUTPUT ${stem}.ptx ${stem}.fatbin ${stem}.ptxas
      COMMAND ${CMAKE_COMMAND} -DNVCC=${NVCC} -DSOURCE=${source} -DINCLUDE=${CMAKE_SOURCE_DIR}/native -DOUT=${CUDA_IMAGES_DIR}
              -DNAME=${name} -DMINIMUM_SM=${minimum_sm} -DMAXIMUM_SM=${maximum_sm} "-DTARGETS=${CUDA_TARGETS}"
              -P ${CMAKE_SOURCE_DIR}/native/cuda/compile_kernels.cmake
      DEPENDS ${source} ${CUDA_HEADERS} ${CMAKE_SOURCE_DIR}/native/cuda/compile_kernels.cmake
      COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND CUDA_NAMES ${name})
    list(APPEND CUDA_OUTPUTS ${stem}.ptx ${stem}.fatbin ${stem}.ptxas)
    foreach(kind ptx fatbin)
      string(APPEND CUDA_SYMBOLS
             "  \".balign 64\\n.globl bireal_${name}_${kind}\\n.hidden bireal_${name}_${kind}\\nbireal_${name}_${kind}:\\n\"\n"
             "  \".incbin \\\"${stem}.${kind}\\\"\\n.byte 0\\n\"\n")
      string(APPEND CUDA_DECLARATIONS
             "extern \"C\" __attribute__((visibility(\"hidden\"))) const char bireal_${name}_${kind}[];\n")
    endforeach()
    string(APPEND CUDA_ENTRIES
           "    {\"${name}\", ${minimum_sm}, ${maximum_sm}, bireal_${name}_ptx, bireal_${name}_fatbin, \"${relabel_to}\"},\n")
  endforeach()
else()
  message(STATUS "nvcc not found: building without CUDA kernels (install the CUDA toolkit 13.0, or set CUDA_HOME, for them)")
endif()
if(CUDA_NAMES)
  set(CUDA_SYMBOLS "__asm__(\n  \".section .rodata\\n\"\n${CUDA_SYMBOLS}  \".previous\\n\");\n")
endif()
file(CONFIGURE OUTPUT "${CUDA_IMAGES_SOURCE}" @ONLY CONTENT [[
// Written by native/cuda/kernels.cmake.
#include "cuda/images.h"

@CUDA_SYMBOLS@
@CUDA_DECLARATIONS@
namespace bireal::cuda {

const std::vector<Image>& images() {
  static const std::vector<Image> list = {
@CUDA_ENTRIES@  };
  return list;
}

int toolkit_version() { return @CUDA_TOOLKIT_VERSION@; }

}  // namespace bireal::cuda
]])
set_source_files_properties("${CUDA_IMAGES_SOURCE}" PROPERTIES OBJECT_DEPENDS "${CUDA_OUTPUTS}")
