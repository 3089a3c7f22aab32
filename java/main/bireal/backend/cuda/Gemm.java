package bireal.backend.cuda;

import bireal.tensor.DType;
import jcuda.cudaDataType;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasComputeType;
import jcuda.jcublas.cublasGemmAlgo;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasOperation;

/**
 * The three products of a fully connected layer, x [rows,C], w [K,C], y [rows,K], all row-major,
 * through cuBLAS, whose matrices are column-major: each is computed as its transpose. Sums are
 * float32; true float32 for F32 operands, without TF32. One stream and one handle: the same bits in
 * every run.
 */
final class Gemm {
  private static final int PLAIN = cublasOperation.CUBLAS_OP_N;
  private static final int TRANSPOSED = cublasOperation.CUBLAS_OP_T;

  private final CudaBackend owner;
  private final cublasHandle handle;

  Gemm(CudaBackend owner, cublasHandle handle) {
    this.owner = owner;
    this.handle = handle;
  }

  /** y = x w^T, or y += x w^T. */
  void fwd(long y, long x, long w, DType type, long rows, long C, long K, boolean accumulate) {
    run(TRANSPOSED, PLAIN, K, rows, C, w, C, x, C, type, y, K, type, accumulate);
  }

  /** dx = dy w. */
  void bwdInput(long dx, long dy, long w, DType type, long rows, long C, long K) {
    run(PLAIN, PLAIN, C, rows, K, w, C, dy, K, type, dx, C, type, false);
  }

  /** dw = dy^T x, or dw += dy^T x; dw is F32. */
  void bwdWeight(
      long dw, long x, long dy, DType type, long rows, long C, long K, boolean accumulate) {
    run(PLAIN, TRANSPOSED, C, K, rows, x, C, dy, K, type, dw, C, DType.F32, accumulate);
  }

  private void run(
      int opA,
      int opB,
      long m,
      long n,
      long k,
      long a,
      long lda,
      long b,
      long ldb,
      DType type,
      long c,
      long ldc,
      DType typeC,
      boolean accumulate) {
    owner.call(
        "cublasGemmEx",
        () ->
            JCublas2.cublasGemmEx_new(
                handle,
                opA,
                opB,
                Math.toIntExact(m),
                Math.toIntExact(n),
                Math.toIntExact(k),
                CudaBackend.ONE,
                CudaBackend.pointer(a),
                dataType(type),
                Math.toIntExact(lda),
                CudaBackend.pointer(b),
                dataType(type),
                Math.toIntExact(ldb),
                accumulate ? CudaBackend.ONE : CudaBackend.ZERO,
                CudaBackend.pointer(c),
                dataType(typeC),
                Math.toIntExact(ldc),
                type == DType.F32
                    ? cublasComputeType.CUBLAS_COMPUTE_32F_PEDANTIC
                    : cublasComputeType.CUBLAS_COMPUTE_32F,
                cublasGemmAlgo.CUBLAS_GEMM_DEFAULT));
  }

  private static int dataType(DType type) {
    return switch (type) {
      case F32 -> cudaDataType.CUDA_R_32F;
      case F16 -> cudaDataType.CUDA_R_16F;
      case BF16 -> cudaDataType.CUDA_R_16BF;
      default -> throw new IllegalArgumentException("no product of " + type);
    };
  }
}
