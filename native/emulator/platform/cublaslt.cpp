// cublaslt: the stand-in libcublasLt.so.12. cuBLAS needs the library to be there; this project calls nothing of it.
#include "emulator/platform/library.h"

extern "C" BIREAL_EXPORT size_t cublasLtGetVersion() { return size_t(bireal::emulator::setting("cublas_version")); }
