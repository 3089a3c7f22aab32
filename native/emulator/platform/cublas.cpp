// cublas: the stand-in libcublas.so.12. Matrix products are queued on the handle's stream and computed in double when they run;
// only what the CUDA 12 API documents is accepted. Column-major, as cuBLAS is.
#include <algorithm>
#include <string>
#include <vector>

#include "emulator/platform/handles.h"
#include "emulator/platform/library.h"
#include "emulator/platform/numbers.h"

using namespace bireal::emulator;

namespace {

enum Status : int {
  kOk = 0,
  kNotInitialised = 1,
  kInvalid = 7,
  kArchMismatch = 8,
  kExecutionFailed = 13,
  kUnsupported = 15,
};

// cudaDataType
constexpr int kR32F = 0, kR16F = 2, kR16BF = 14;
// cublasComputeType_t
constexpr int kCompute32F = 68, kCompute32FPedantic = 69, kCompute32FFast16F = 74, kCompute32FFast16BF = 75,
              kCompute32FFastTf32 = 77;
// cublasMath_t
constexpr int kTf32Math = 3;

struct Handle {
  uint64_t stream = 0;
  int math_mode = 0;
  int pointer_mode = 0;  // 0: alpha and beta in host memory
  int atomics_mode = 0;
  Range workspace;
  bool workspace_lost = false;  // cublasSetStream took the workspace away
};

Handles<Handle>& handles() {
  static auto* table = new Handles<Handle>(0x61);
  return *table;
}

struct Matrix {
  uint64_t address = 0;
  Storage type = Storage::kFloat;
  int64_t rows = 0, columns = 0, leading = 0;  // as stored
  int64_t stride = 0;                          // elements from one matrix of a batch to the next

  Range column(int64_t batch, int64_t j) const {
    uint64_t size = storage_bytes(type);
    return {address + uint64_t(batch * stride + j * leading) * size, uint64_t(rows) * size};
  }
  unsigned char* at(int64_t batch, int64_t i, int64_t j) const {
    return reinterpret_cast<unsigned char*>(address) + uint64_t(batch * stride + j * leading + i) * storage_bytes(type);
  }
};

struct Product {
  const char* name = "";
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0, batch = 1;
  Matrix a, b, c;
  Operands operands = Operands::kExact;
  const float *alpha = nullptr, *beta = nullptr;
};

// A scalar: read at the call from host memory, or when the work runs from device memory.
struct Scalar {
  float value = 0;
  uint64_t device_address = 0;
  float get(Execution& e, const char* what) const {
    if (device_address == 0) return value;
    e.read({device_address, 4}, what);
    return *reinterpret_cast<const float*>(device_address);
  }
};

void multiply(Execution& e, const Product& p, const Scalar& alpha_source, const Scalar& beta_source, Range workspace) {
  float alpha = alpha_source.get(e, "alpha"), beta = beta_source.get(e, "beta");
  for (int64_t batch = 0; batch < p.batch; ++batch) {
    if (alpha != 0 && p.k > 0) {
      for (int64_t j = 0; j < p.a.columns; ++j) e.read(p.a.column(batch, j), "A");
      for (int64_t j = 0; j < p.b.columns; ++j) e.read(p.b.column(batch, j), "B");
    }
    for (int64_t j = 0; j < p.n; ++j) {
      if (beta != 0) e.read(p.c.column(batch, j), "C");  // with beta = 0 C need not be valid
      e.write(p.c.column(batch, j), "C");
    }
  }
  e.scratch(workspace, "workspace");
  for (int64_t batch = 0; batch < p.batch; ++batch) {
    std::vector<float> a(size_t(p.m * p.k));
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t l = 0; l < p.k; ++l)
        a[size_t(i * p.k + l)] =
            round_operand(p.operands, load(p.a.type, p.transpose_a ? p.a.at(batch, l, i) : p.a.at(batch, i, l)));
    std::vector<float> b(size_t(p.k));
    for (int64_t j = 0; j < p.n; ++j) {
      for (int64_t l = 0; l < p.k; ++l)
        b[size_t(l)] = round_operand(p.operands, load(p.b.type, p.transpose_b ? p.b.at(batch, j, l) : p.b.at(batch, l, j)));
      for (int64_t i = 0; i < p.m; ++i) {
        double sum = 0;
        for (int64_t l = 0; l < p.k; ++l) sum += double(a[size_t(i * p.k + l)]) * double(b[size_t(l)]);
        double result = double(alpha) * sum;
        if (alpha == 0) result = 0;
        if (beta != 0) result += double(beta) * double(load(p.c.type, p.c.at(batch, i, j)));
        store(p.c.type, p.c.at(batch, i, j), result);
      }
    }
  }
}

bool legal_operation(int operation) { return operation >= 0 && operation <= 2; }  // N, T, C

bool storage_of(int data_type, Storage* type) {
  switch (data_type) {
    case kR32F: *type = Storage::kFloat; return true;
    case kR16F: *type = Storage::kHalf; return true;
    case kR16BF: *type = Storage::kBfloat16; return true;
    default: return false;
  }
}

int submit(uint64_t handle_number, Product p, int operation_a, int operation_b) {
  Handle* handle = handles().get(handle_number);
  if (handle == nullptr) return refuse(p.name, kNotInitialised, "no such cuBLAS handle");
  if (!legal_operation(operation_a) || !legal_operation(operation_b))
    return refuse(p.name, kInvalid, "operation is none of CUBLAS_OP_N, T, C");
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0) return refuse(p.name, kInvalid, "a negative size");
  p.transpose_a = operation_a != 0;
  p.transpose_b = operation_b != 0;
  p.a.rows = p.transpose_a ? p.k : p.m;
  p.a.columns = p.transpose_a ? p.m : p.k;
  p.b.rows = p.transpose_b ? p.n : p.k;
  p.b.columns = p.transpose_b ? p.k : p.n;
  p.c.rows = p.m;
  p.c.columns = p.n;
  const char* names[] = {"A", "B", "C"};
  const Matrix* matrices[] = {&p.a, &p.b, &p.c};
  for (int i = 0; i < 3; ++i)
    if (matrices[i]->leading < std::max<int64_t>(1, matrices[i]->rows))
      return refuse(p.name, kInvalid,
                    std::string("leading dimension ") + std::to_string(matrices[i]->leading) + " of " + names[i] +
                        " is smaller than its " + std::to_string(matrices[i]->rows) + " rows");
  if (p.m == 0 || p.n == 0 || p.batch == 0) return kOk;
  if (p.alpha == nullptr || p.beta == nullptr) return refuse(p.name, kInvalid, "alpha or beta is null");
  for (int i = 0; i < 3; ++i) {
    std::string why;
    if (i < 2 && p.k == 0) continue;
    if (matrices[i]->address % storage_bytes(matrices[i]->type) != 0)
      return refuse(p.name, kInvalid, std::string(names[i]) + " is not aligned to its type");
    if (!device_memory({matrices[i]->address, 1}, &why))
      return refuse(p.name, kExecutionFailed, std::string(names[i]) + ": " + why);
  }
  bool bfloat = p.a.type == Storage::kBfloat16;
  if (bfloat && setting("compute_capability") < 80) return refuse(p.name, kUnsupported, "bfloat16 needs compute capability 8.0");
  if (p.operands == Operands::kTf32 && setting("compute_capability") < 80) p.operands = Operands::kExact;

  Scalar alpha, beta;
  if (handle->pointer_mode == 0) {
    alpha.value = *p.alpha;
    beta.value = *p.beta;
  } else {
    alpha.device_address = reinterpret_cast<uint64_t>(p.alpha);
    beta.device_address = reinterpret_cast<uint64_t>(p.beta);
  }
  Range workspace = handle->workspace;
  bool lost = handle->workspace_lost;
  Work work;
  work.name = p.name;
  work.run = [p, alpha, beta, workspace, lost](Execution& e) {
    if (lost) e.find("cublasSetStream took the workspace of cublasSetWorkspace away; set it again after each cublasSetStream");
    multiply(e, p, alpha, beta, workspace);
  };
  int result = submit_library_call(handle->stream, std::move(work));
  return result == 0 ? kOk : refuse(p.name, kExecutionFailed, bireal_emulator_last_error());
}

/// A matrix of floats; configure() sets other types.
Matrix matrix(uint64_t address, int64_t leading, int64_t stride = 0) {
  Matrix result;
  result.address = address;
  result.leading = leading;
  result.stride = stride;
  return result;
}

Product product(const char* name, int m, int n, int k, int batch, const float* alpha, const float* beta, const Matrix& a,
                const Matrix& b, const Matrix& c) {
  Product p;
  p.name = name;
  p.m = m, p.n = n, p.k = k, p.batch = batch;
  p.alpha = alpha, p.beta = beta;
  p.a = a, p.b = b, p.c = c;
  return p;
}

/// Type, compute type and algorithm of the ...Ex calls: the table of supported combinations in the cuBLAS guide.
int configure(Product* p, uint64_t handle_number, int a_type, int b_type, int c_type, int compute, int algorithm) {
  Handle* handle = handles().get(handle_number);
  if (handle == nullptr) return refuse(p->name, kNotInitialised, "no such cuBLAS handle");
  if (!(algorithm >= -1 && algorithm <= 23) && !(algorithm >= 99 && algorithm <= 115))
    return refuse(p->name, kInvalid, "algorithm " + std::to_string(algorithm) + " is no cublasGemmAlgo_t");
  switch (compute) {
    case kCompute32F: p->operands = handle->math_mode % 16 == kTf32Math ? Operands::kTf32 : Operands::kExact; break;
    case kCompute32FPedantic: p->operands = Operands::kExact; break;
    case kCompute32FFast16F: p->operands = Operands::kHalf; break;
    case kCompute32FFast16BF: p->operands = Operands::kBfloat16; break;
    case kCompute32FFastTf32: p->operands = Operands::kTf32; break;
    case 64:
    case 65:
    case 70:
    case 71:
    case 72:
    case 73: return refuse(p->name, kUnsupported, "compute type " + std::to_string(compute) + " is legal, but not emulated");
    default: return refuse(p->name, kInvalid, "compute type " + std::to_string(compute) + " is no cublasComputeType_t");
  }
  if (!storage_of(a_type, &p->a.type) || !storage_of(b_type, &p->b.type) || !storage_of(c_type, &p->c.type))
    return refuse(p->name, kUnsupported, "a data type other than CUDA_R_32F, R_16F and R_16BF");
  if (a_type != b_type) return refuse(p->name, kUnsupported, "A and B have different types");
  bool fast = compute > kCompute32FPedantic;
  bool legal = a_type == kR32F ? c_type == kR32F : !fast && (c_type == kR32F || c_type == a_type);
  if (!legal)
    return refuse(p->name, kUnsupported,
                  "types A " + std::to_string(a_type) + ", C " + std::to_string(c_type) + " do not go with compute type " +
                      std::to_string(compute));
  if (a_type != kR32F) p->operands = Operands::kExact;
  return kOk;
}

}  // namespace

API int cublasCreate_v2(uint64_t* handle) {
  if (handle == nullptr) return refuse("cublasCreate", kInvalid, "handle is null");
  *handle = handles().create();
  return kOk;
}

API int cublasDestroy_v2(uint64_t handle) {
  return handles().destroy(handle) ? int(kOk) : refuse("cublasDestroy", kNotInitialised, "no such cuBLAS handle");
}

API int cublasGetVersion_v2(uint64_t, int* version) {
  if (version == nullptr) return refuse("cublasGetVersion", kInvalid, "version is null");
  *version = int(setting("cublas_version"));
  return kOk;
}

API int cublasGetProperty(int type, int* value) {
  int version = int(setting("cublas_version"));
  if (value == nullptr || type < 0 || type > 2) return refuse("cublasGetProperty", kInvalid, "unknown property");
  *value = type == 0 ? version / 10000 : type == 1 ? version / 100 % 100 : version % 100;
  return kOk;
}

API size_t cublasGetCudartVersion() { return 12060; }

API const char* cublasGetStatusName(int status) {
  switch (status) {
    case kOk: return "CUBLAS_STATUS_SUCCESS";
    case kNotInitialised: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3: return "CUBLAS_STATUS_ALLOC_FAILED";
    case kInvalid: return "CUBLAS_STATUS_INVALID_VALUE";
    case kArchMismatch: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case 11: return "CUBLAS_STATUS_MAPPING_ERROR";
    case kExecutionFailed: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 14: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case kUnsupported: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case 16: return "CUBLAS_STATUS_LICENSE_ERROR";
    default: return "unknown status";
  }
}
API const char* cublasGetStatusString(int status) { return cublasGetStatusName(status); }

#define HANDLE(name)                             \
  Handle* handle = handles().get(handle_number); \
  if (handle == nullptr) return refuse(name, kNotInitialised, "no such cuBLAS handle")

API int cublasSetStream_v2(uint64_t handle_number, uint64_t stream) {
  HANDLE("cublasSetStream");
  handle->stream = stream;
  handle->workspace_lost = handle->workspace_lost || handle->workspace.bytes > 0;
  handle->workspace = {};
  return kOk;
}

API int cublasGetStream_v2(uint64_t handle_number, uint64_t* stream) {
  HANDLE("cublasGetStream");
  *stream = handle->stream;
  return kOk;
}

API int cublasSetWorkspace_v2(uint64_t handle_number, uint64_t address, size_t bytes) {
  HANDLE("cublasSetWorkspace");
  std::string why;
  if (address % 256 != 0) return refuse("cublasSetWorkspace", kInvalid, "the workspace is not aligned to 256 bytes");
  if (bytes > 0 && !device_memory({address, bytes}, &why)) return refuse("cublasSetWorkspace", kInvalid, why);
  handle->workspace = {address, bytes};
  handle->workspace_lost = false;
  return kOk;
}

API int cublasSetMathMode(uint64_t handle_number, int mode) {
  HANDLE("cublasSetMathMode");
  // CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16 may be added.
  if (mode < 0 || (mode & ~16) > kTf32Math) return refuse("cublasSetMathMode", kInvalid, "mode " + std::to_string(mode));
  handle->math_mode = mode;
  return kOk;
}

API int cublasGetMathMode(uint64_t handle_number, int* mode) {
  HANDLE("cublasGetMathMode");
  *mode = handle->math_mode;
  return kOk;
}

API int cublasSetPointerMode_v2(uint64_t handle_number, int mode) {
  HANDLE("cublasSetPointerMode");
  if (mode != 0 && mode != 1) return refuse("cublasSetPointerMode", kInvalid, "mode " + std::to_string(mode));
  handle->pointer_mode = mode;
  return kOk;
}

API int cublasGetPointerMode_v2(uint64_t handle_number, int* mode) {
  HANDLE("cublasGetPointerMode");
  *mode = handle->pointer_mode;
  return kOk;
}

API int cublasSetAtomicsMode(uint64_t handle_number, int mode) {
  HANDLE("cublasSetAtomicsMode");
  if (mode != 0 && mode != 1) return refuse("cublasSetAtomicsMode", kInvalid, "mode " + std::to_string(mode));
  handle->atomics_mode = mode;
  return kOk;
}

API int cublasGetAtomicsMode(uint64_t handle_number, int* mode) {
  HANDLE("cublasGetAtomicsMode");
  *mode = handle->atomics_mode;
  return kOk;
}

API int cublasSgemmStridedBatched(uint64_t handle_number, int operation_a, int operation_b, int m, int n, int k,
                                  const float* alpha, uint64_t a, int lda, long long stride_a, uint64_t b, int ldb,
                                  long long stride_b, const float* beta, uint64_t c, int ldc, long long stride_c, int batch) {
  HANDLE("cublasSgemmStridedBatched");
  Product p = product("cublasSgemmStridedBatched", m, n, k, batch, alpha, beta, matrix(a, lda, stride_a),
                      matrix(b, ldb, stride_b), matrix(c, ldc, stride_c));
  p.operands = handle->math_mode % 16 == kTf32Math ? Operands::kTf32 : Operands::kExact;
  return submit(handle_number, p, operation_a, operation_b);
}

API int cublasSgemm_v2(uint64_t handle_number, int operation_a, int operation_b, int m, int n, int k, const float* alpha,
                       uint64_t a, int lda, uint64_t b, int ldb, const float* beta, uint64_t c, int ldc) {
  HANDLE("cublasSgemm");
  Product p = product("cublasSgemm", m, n, k, 1, alpha, beta, matrix(a, lda), matrix(b, ldb), matrix(c, ldc));
  p.operands = handle->math_mode % 16 == kTf32Math ? Operands::kTf32 : Operands::kExact;
  return submit(handle_number, p, operation_a, operation_b);
}

API int cublasGemmStridedBatchedEx(uint64_t handle_number, int operation_a, int operation_b, int m, int n, int k,
                                   const float* alpha, uint64_t a, int a_type, int lda, long long stride_a, uint64_t b,
                                   int b_type, int ldb, long long stride_b, const float* beta, uint64_t c, int c_type, int ldc,
                                   long long stride_c, int batch, int compute, int algorithm) {
  Product p = product("cublasGemmStridedBatchedEx", m, n, k, batch, alpha, beta, matrix(a, lda, stride_a),
                      matrix(b, ldb, stride_b), matrix(c, ldc, stride_c));
  int status = configure(&p, handle_number, a_type, b_type, c_type, compute, algorithm);
  return status != kOk ? status : submit(handle_number, p, operation_a, operation_b);
}

API int cublasGemmEx(uint64_t handle_number, int operation_a, int operation_b, int m, int n, int k, const float* alpha,
                     uint64_t a, int a_type, int lda, uint64_t b, int b_type, int ldb, const float* beta, uint64_t c, int c_type,
                     int ldc, int compute, int algorithm) {
  Product p = product("cublasGemmEx", m, n, k, 1, alpha, beta, matrix(a, lda), matrix(b, ldb), matrix(c, ldc));
  int status = configure(&p, handle_number, a_type, b_type, c_type, compute, algorithm);
  return status != kOk ? status : submit(handle_number, p, operation_a, operation_b);
}
