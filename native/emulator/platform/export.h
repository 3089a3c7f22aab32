// export: how the stand-in libraries export functions. Declarations of the CUDA functions are NVIDIA's headers, which are not
// needed here; a wrong signature shows in the tests, which call through JCuda and through our own launchers.
#pragma once

#define BIREAL_EXPORT __attribute__((visibility("default")))
#define API extern "C" BIREAL_EXPORT

#pragma GCC diagnostic ignored "-Wmissing-declarations"
