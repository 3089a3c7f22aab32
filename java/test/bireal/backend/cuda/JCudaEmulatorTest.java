package bireal.backend.cuda;

import static jcuda.driver.JCudaDriver.*;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import jcuda.CudaException;
import jcuda.Pointer;
import jcuda.driver.CUcontext;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.CUdeviceptr;
import jcuda.driver.CUfunction;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUmodule;
import jcuda.driver.CUresult;
import jcuda.driver.CUstream;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.CUstream_flags;
import jcuda.driver.JCudaDriver;
import jcuda.jcublas.JCublas2;
import jcuda.jcublas.cublasComputeType;
import jcuda.jcublas.cublasHandle;
import jcuda.jcublas.cublasOperation;
import jcuda.jcudnn.JCudnn;
import jcuda.jcudnn.cudnnConvolutionBwdFilterAlgoPerf;
import jcuda.jcudnn.cudnnConvolutionDescriptor;
import jcuda.jcudnn.cudnnConvolutionFwdAlgo;
import jcuda.jcudnn.cudnnConvolutionMode;
import jcuda.jcudnn.cudnnDataType;
import jcuda.jcudnn.cudnnFilterDescriptor;
import jcuda.jcudnn.cudnnHandle;
import jcuda.jcudnn.cudnnMathType;
import jcuda.jcudnn.cudnnTensorDescriptor;
import jcuda.jcudnn.cudnnTensorFormat;
import jcuda.runtime.cudaStream_t;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** JCuda, JCublas2 and JCudnn run unchanged on the stand-in libraries. */
class JCudaEmulatorTest {
  private final CUstream stream = new CUstream();

  @BeforeAll
  static void load() {
    assumeTrue(Emulator.emulated(), "tests of the emulator");
    Emulator.load();
    JCudaDriver.setExceptionsEnabled(true);
    JCublas2.setExceptionsEnabled(true);
    JCudnn.setExceptionsEnabled(true);
  }

  @BeforeEach
  void start() {
    Emulator.reset();
    cuInit(0);
    CUdevice device = new CUdevice();
    cuDeviceGet(device, 0);
    CUcontext context = new CUcontext();
    cuDevicePrimaryCtxRetain(context, device);
    cuCtxSetCurrent(context);
    cuStreamCreate(stream, CUstream_flags.CU_STREAM_NON_BLOCKING);
  }

  @AfterEach
  void end() {
    assertEquals(List.of(), Emulator.findings());
    Emulator.reset();
  }

  private CUdeviceptr upload(float... values) {
    CUdeviceptr memory = new CUdeviceptr();
    cuMemAlloc(memory, values.length * 4L);
    cuMemcpyHtoDAsync(memory, Pointer.to(values), values.length * 4L, stream);
    return memory;
  }

  /**
   * Through a direct buffer: under -Xcheck:jni arrays are handed to natives as copies, and JCuda
   * does not write those back.
   */
  private float[] download(CUdeviceptr memory, int count) {
    ByteBuffer bytes = ByteBuffer.allocateDirect(count * 4).order(ByteOrder.nativeOrder());
    cuStreamSynchronize(stream);
    cuMemcpyDtoH(Pointer.to(bytes), memory, count * 4L);
    float[] values = new float[count];
    bytes.asFloatBuffer().get(values);
    return values;
  }

  private static Pointer scalar(float value) {
    return Pointer.to(new float[] {value});
  }

  @Test
  void driverDescribesItselfAndRefusesWithItsReason() {
    CUdevice device = new CUdevice();
    cuDeviceGet(device, 0);
    int[] major = new int[1];
    cuDeviceGetAttribute(
        major, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
    assertEquals(8, major[0]);
    Emulator.set("memory_limit", 1 << 20);
    CudaException full =
        assertThrows(CudaException.class, () -> cuMemAlloc(new CUdeviceptr(), 2 << 20));
    assertTrue(full.getMessage().contains("CUDA_ERROR_OUT_OF_MEMORY"), full.getMessage());
    assertTrue(Emulator.lastError().contains("2097152 bytes wanted"), Emulator.lastError());
  }

  @Test
  void pinnedMemoryEventsAndGraph() {
    Pointer host = new Pointer();
    cuMemHostAlloc(host, 8, 0);
    ByteBuffer buffer = host.getByteBuffer(0, 8).order(ByteOrder.nativeOrder());
    buffer.putFloat(0, 1).putFloat(4, 2);
    CUdeviceptr from = upload(0, 0);
    CUdeviceptr to = upload(0, 0);
    cuStreamSynchronize(stream);
    CUgraph graph = new CUgraph();
    cuStreamBeginCapture(stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    cuMemcpyHtoDAsync(from, host, 8, stream);
    cuMemcpyDtoDAsync(to, from, 8, stream);
    cuStreamEndCapture(stream, graph);
    CUgraphExec exec = new CUgraphExec();
    cuGraphInstantiate(exec, graph, 0);
    cuGraphLaunch(exec, stream);
    assertArrayEquals(new float[] {1, 2}, download(to, 2));
    buffer.putFloat(4, 5);
    cuGraphLaunch(exec, stream);
    assertArrayEquals(new float[] {1, 5}, download(to, 2));
    cuGraphExecDestroy(exec);
    cuGraphDestroy(graph);
    cuMemFreeHost(host);
    cuMemFree(from);
    cuMemFree(to);
    assertEquals(0, Emulator.get("live_bytes"));
    assertEquals(0, Emulator.get("pinned_bytes"));
  }

  @Test
  void kernelFromPtxText() {
    String ptx =
        """
        .version 6.4
        .target sm_75
        .address_size 64
        .visible .entry scale_kernel(.param .u64 x, .param .f32 a, .param .u32 n)
        {
          .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<6>; .reg .b64 %rd<5>;
          ld.param.u64 %rd1, [x];
          ld.param.f32 %f1, [a];
          ld.param.u32 %r1, [n];
          mov.u32 %r2, %ctaid.x;
          mov.u32 %r3, %ntid.x;
          mov.u32 %r4, %tid.x;
          mad.lo.s32 %r5, %r2, %r3, %r4;
          setp.ge.u32 %p1, %r5, %r1;
          @%p1 bra DONE;
          cvta.to.global.u64 %rd2, %rd1;
          mul.wide.u32 %rd3, %r5, 4;
          add.s64 %rd4, %rd2, %rd3;
          ld.global.f32 %f2, [%rd4];
          mul.f32 %f3, %f2, %f1;
          st.global.f32 [%rd4], %f3;
        DONE:
          ret;
        }
        """;
    CUmodule module = new CUmodule();
    cuModuleLoadData(module, ptx + "\0");
    CUfunction function = new CUfunction();
    cuModuleGetFunction(function, module, "scale_kernel");
    CUdeviceptr x = upload(1, 2, 3);
    Pointer parameters =
        Pointer.to(Pointer.to(x), Pointer.to(new float[] {2}), Pointer.to(new int[] {3}));
    cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, parameters, null);
    assertArrayEquals(new float[] {2, 4, 6}, download(x, 3));
    assertTrue(Emulator.records().contains("scale_kernel"), () -> Emulator.records().toString());
    cuModuleUnload(module);
  }

  @Test
  void sgemm() {
    cublasHandle handle = new cublasHandle();
    JCublas2.cublasCreate(handle);
    JCublas2.cublasSetStream(handle, new cudaStream_t(stream));
    CUdeviceptr a = upload(1, 2, 3, 4);
    CUdeviceptr b = upload(5, 6, 7, 8);
    CUdeviceptr c = new CUdeviceptr();
    cuMemAlloc(c, 16);
    int none = cublasOperation.CUBLAS_OP_N;
    JCublas2.cublasSgemm(handle, none, none, 2, 2, 2, scalar(1), a, 2, b, 2, scalar(0), c, 2);
    assertArrayEquals(new float[] {23, 34, 31, 46}, download(c, 4));
    int f32 = jcuda.cudaDataType.CUDA_R_32F;
    JCublas2.cublasGemmEx_new(
        handle,
        none,
        none,
        2,
        2,
        2,
        scalar(1),
        a,
        f32,
        2,
        b,
        f32,
        2,
        scalar(1),
        c,
        f32,
        2,
        cublasComputeType.CUBLAS_COMPUTE_32F,
        -1);
    assertArrayEquals(new float[] {46, 68, 62, 92}, download(c, 4));
    JCublas2.cublasDestroy(handle);
  }

  @Test
  void convolution() {
    cudnnHandle handle = new cudnnHandle();
    JCudnn.cudnnCreate(handle);
    JCudnn.cudnnSetStream(handle, new cudaStream_t(stream));
    assertEquals(90501, JCudnn.cudnnGetVersion());
    cudnnTensorDescriptor xDesc = new cudnnTensorDescriptor();
    cudnnFilterDescriptor wDesc = new cudnnFilterDescriptor();
    cudnnConvolutionDescriptor conv = new cudnnConvolutionDescriptor();
    JCudnn.cudnnCreateTensorDescriptor(xDesc);
    JCudnn.cudnnCreateFilterDescriptor(wDesc);
    JCudnn.cudnnCreateConvolutionDescriptor(conv);
    int nchw = cudnnTensorFormat.CUDNN_TENSOR_NCHW;
    int f32 = cudnnDataType.CUDNN_DATA_FLOAT;
    JCudnn.cudnnSetTensor4dDescriptor(xDesc, nchw, f32, 1, 1, 3, 3);
    JCudnn.cudnnSetFilter4dDescriptor(wDesc, f32, nchw, 1, 1, 3, 3);
    JCudnn.cudnnSetConvolution2dDescriptor(
        conv, 1, 1, 1, 1, 1, 1, cudnnConvolutionMode.CUDNN_CROSS_CORRELATION, f32);
    JCudnn.cudnnSetConvolutionMathType(conv, cudnnMathType.CUDNN_FMA_MATH);
    CUdeviceptr x = upload(1, 2, 3, 4, 5, 6, 7, 8, 9);
    CUdeviceptr w = upload(0, 0, 0, 0, 2, 1, 0, 0, 0);
    CUdeviceptr y = new CUdeviceptr();
    cuMemAlloc(y, 36);
    JCudnn.cudnnConvolutionForward(
        handle,
        scalar(1),
        xDesc,
        x,
        wDesc,
        w,
        conv,
        cudnnConvolutionFwdAlgo.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        new Pointer(),
        0,
        scalar(0),
        xDesc,
        y);
    assertArrayEquals(new float[] {4, 7, 6, 13, 16, 12, 22, 25, 18}, download(y, 9));
    cudnnConvolutionBwdFilterAlgoPerf[] list = new cudnnConvolutionBwdFilterAlgoPerf[8];
    for (int i = 0; i < list.length; ++i) {
      list[i] = new cudnnConvolutionBwdFilterAlgoPerf();
    }
    int[] count = new int[1];
    JCudnn.cudnnGetConvolutionBackwardFilterAlgorithm_v7(
        handle, xDesc, xDesc, conv, wDesc, list.length, count, list);
    assertEquals(1, list[1].algo);
    assertEquals(1, list[1].determinism);
    assertEquals(cudnnMathType.CUDNN_FMA_MATH, list[1].mathType);
    assertEquals(256, list[1].memory);
    JCudnn.cudnnDestroy(handle);
  }

  @Test
  void injectedFaultReachesJava() {
    Emulator.set("fail_launch", 1);
    cublasHandle handle = new cublasHandle();
    JCublas2.cublasCreate(handle);
    JCublas2.cublasSetStream(handle, new cudaStream_t(stream));
    CUdeviceptr a = upload(1);
    int none = cublasOperation.CUBLAS_OP_N;
    JCublas2.cublasSgemm(
        handle, none, none, 1, 1, 1, scalar(1), a, 1, a, 1, scalar(0), upload(0), 1);
    CudaException lost = assertThrows(CudaException.class, () -> cuStreamSynchronize(stream));
    assertTrue(
        lost.getMessage().contains(CUresult.stringFor(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)),
        lost.getMessage());
  }
}
