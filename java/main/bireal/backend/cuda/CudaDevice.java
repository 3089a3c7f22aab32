package bireal.backend.cuda;

import bireal.runtime.DeviceException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import jcuda.CudaException;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.JCudaDriver;
import jcuda.jcublas.JCublas2;
import jcuda.jcudnn.JCudnn;

/**
 * What a GPU says of itself, and the versions around it.
 *
 * @param computeCapability such as {@code 9.0}
 * @param driverVersion newest CUDA that the driver knows, such as {@code 12.4}
 */
public record CudaDevice(
    int ordinal,
    String name,
    String computeCapability,
    long memoryBytes,
    String driverVersion,
    String blasVersion,
    String dnnVersion) {

  /** All of this machine. Throws DeviceException that says what is missing. */
  public static List<CudaDevice> list() {
    CudaLibraries.load();
    try {
      JCudaDriver.cuInit(0);
      int[] count = new int[1];
      JCudaDriver.cuDeviceGetCount(count);
      List<CudaDevice> devices = new ArrayList<>();
      for (int i = 0; i < count[0]; i++) {
        devices.add(describe(i));
      }
      return devices;
    } catch (CudaException e) {
      throw none(e.getMessage());
    }
  }

  /** As {@link #list}; IllegalArgumentException for an ordinal that does not exist. */
  static CudaDevice of(int ordinal) {
    List<CudaDevice> devices = list();
    if (devices.isEmpty()) {
      throw none("the driver sees no GPU");
    }
    if (ordinal < 0 || ordinal >= devices.size()) {
      throw new IllegalArgumentException(
          "device "
              + ordinal
              + " does not exist; this machine has "
              + (devices.size() == 1 ? "only device 0" : "devices 0 to " + (devices.size() - 1)));
    }
    return devices.get(ordinal);
  }

  /** Which kernels a device would run, for people. */
  public String kernels() {
    int sm = (int) Math.round(10 * Double.parseDouble(computeCapability));
    if (sm < 75) {
      return "none: 7.5 or newer is needed";
    }
    return (sm >= 80 && sm <= 90
            ? "popcount or b1 tensor cores, measured at the start"
            : "popcount")
        + "; "
        + (CudaOps.toolkitVersion() <= driverCode(driverVersion)
            ? "machine code"
            : "PTX, compiled by the driver");
  }

  private static int driverCode(String version) {
    String[] parts = version.split("\\.", -1);
    return 1000 * Integer.parseInt(parts[0]) + 10 * Integer.parseInt(parts[1]);
  }

  /** Versions of driver, toolkit and libraries, by name. */
  public static Map<String, String> versions() {
    Map<String, String> versions = new LinkedHashMap<>();
    int toolkit = CudaOps.toolkitVersion();
    versions.put("kernels: CUDA toolkit", toolkit / 1000 + "." + toolkit % 1000 / 10);
    for (CudaDevice device : list().stream().limit(1).toList()) {
      versions.put("driver: CUDA", device.driverVersion());
      versions.put("cuBLAS", device.blasVersion());
      versions.put("cuDNN", device.dnnVersion());
    }
    return versions;
  }

  /** Files of NVIDIA's that this process has loaded. */
  public static List<String> libraries() {
    return CudaLibraries.loaded();
  }

  private static DeviceException none(String reason) {
    return new DeviceException(
        "cuInit",
        0,
        "backend cuda: no usable GPU: "
            + reason
            + "; look at nvidia-smi (and at CUDA_VISIBLE_DEVICES, or at the container's --gpus), or choose"
            + " backend: cpu",
        true);
  }

  private static CudaDevice describe(int ordinal) {
    CUdevice device = new CUdevice();
    JCudaDriver.cuDeviceGet(device, ordinal);
    // Results come into int[1] and direct buffers only: JCuda loses other arrays under -Xcheck:jni.
    int major = attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    int minor = attribute(device, CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    byte[] name = new byte[256];
    JCudaDriver.cuDeviceGetName(name, name.length, device);
    long[] memory = new long[1];
    JCudaDriver.cuDeviceTotalMem(memory, device);
    int[] driver = new int[1];
    JCudaDriver.cuDriverGetVersion(driver);
    return new CudaDevice(
        ordinal,
        text(name),
        major + "." + minor,
        memory[0],
        driver[0] / 1000 + "." + driver[0] % 1000 / 10,
        blas(),
        dotted(JCudnn.cudnnGetVersion(), 10000, 100));
  }

  private static String blas() {
    int[] major = new int[1];
    int[] minor = new int[1];
    int[] patch = new int[1];
    JCublas2.cublasGetProperty(jcuda.libraryPropertyType.MAJOR_VERSION, major);
    JCublas2.cublasGetProperty(jcuda.libraryPropertyType.MINOR_VERSION, minor);
    JCublas2.cublasGetProperty(jcuda.libraryPropertyType.PATCH_LEVEL, patch);
    return major[0] + "." + minor[0] + "." + patch[0];
  }

  private static String dotted(long version, long major, long minor) {
    return version / major + "." + version % major / minor + "." + version % minor;
  }

  private static int attribute(CUdevice device, int attribute) {
    int[] value = new int[1];
    JCudaDriver.cuDeviceGetAttribute(value, attribute, device);
    return value[0];
  }

  private static String text(byte[] name) {
    int end = 0;
    while (end < name.length && name[end] != 0) {
      end++;
    }
    return new String(name, 0, end, StandardCharsets.UTF_8);
  }
}
