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

  /** What the kernels' launches and JCuda's natives were made for. */
  private static final int DRIVER = 12;

  private static final int BLAS = 12;
  private static final int DNN = 9;

  /** All of this machine. Throws DeviceException that says what is missing, or too old. */
  public static List<CudaDevice> list() {
    loadChecked();
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
              + (devices.size() == 1
                  ? "only device 0; set device: 0"
                  : "devices 0 to " + (devices.size() - 1) + "; set device to one of them"));
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

  private static void loadChecked() {
    CudaLibraries.load();
    int driver = newestCuda();
    if (driver < 1000 * DRIVER) {
      throw CudaLibraries.missing(
          "the NVIDIA driver knows CUDA up to "
              + driverText(driver)
              + ", but "
              + DRIVER
              + ".0 or newer is needed",
          "update the driver to R525 or newer");
    }
    require("cuBLAS", blas(), BLAS);
    require("cuDNN", dnn(), DNN);
  }

  private static void require(String library, String version, int major) {
    if (!version.startsWith(major + ".")) {
      throw CudaLibraries.missing(
          library + " " + version + " is loaded, but version " + major + " is needed",
          CudaLibraries.howToGet());
    }
  }

  private static int driverCode(String version) {
    String[] parts = version.split("\\.", -1);
    return 1000 * Integer.parseInt(parts[0]) + 10 * Integer.parseInt(parts[1]);
  }

  /** Versions of toolkit, driver and libraries, by name. Throws as {@link #list}; needs no GPU. */
  public static Map<String, String> versions() {
    loadChecked();
    Map<String, String> versions = new LinkedHashMap<>();
    versions.put("kernels: CUDA toolkit", driverText(CudaOps.toolkitVersion()));
    versions.put("driver: CUDA", driverText(newestCuda()));
    versions.put("cuBLAS", blas());
    versions.put("cuDNN", dnn());
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
    return new CudaDevice(
        ordinal,
        text(name),
        major + "." + minor,
        memory[0],
        driverText(newestCuda()),
        blas(),
        dnn());
  }

  private static int newestCuda() {
    int[] version = new int[1];
    JCudaDriver.cuDriverGetVersion(version);
    return version[0];
  }

  private static String driverText(int version) {
    return version / 1000 + "." + version % 1000 / 10;
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

  /** 9.5.1 is 90501; until version 8 it would have been 9501. */
  private static String dnn() {
    long version = JCudnn.cudnnGetVersion();
    int major = version < 10000 ? 1000 : 10000;
    return version / major + "." + version % major / 100 + "." + version % 100;
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
