package bireal.backend.cuda;

import bireal.runtime.DeviceException;
import bireal.runtime.NativeException;
import bireal.runtime.NativeLibrary;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.Logger;
import jcuda.driver.JCudaDriver;
import jcuda.jcublas.JCublas2;
import jcuda.jcudnn.JCudnn;

/**
 * Loads NVIDIA's libraries and JCuda's natives, once for the process. The driver comes from the
 * system; cuBLAS 12 and cuDNN 9 from the folder in the system property {@code
 * bireal.cuda.libraries} (no fallback if one is missing there), else from where the system's loader
 * looks. What is loaded under a name serves JCuda, whose natives ask for that name.
 */
final class CudaLibraries {
  /** System property: a folder with libcublas.so.12, libcudnn.so.9 and what belongs to them. */
  static final String FOLDER = "bireal.cuda.libraries";

  static final String DRIVER = "libcuda.so.1";
  private static final List<String> BLAS = List.of("libcublasLt.so.12", "libcublas.so.12");
  private static final String DNN = "libcudnn.so.9";

  /** What cuDNN opens by name when it is first needed, each needing those before it. */
  private static final List<String> DNN_PARTS =
      List.of(
          "libnvrtc.so.12",
          "libcudnn_graph.so.9",
          "libcudnn_ops.so.9",
          "libcudnn_cnn.so.9",
          "libcudnn_engines_precompiled.so.9",
          "libcudnn_engines_runtime_compiled.so.9",
          "libcudnn_heuristic.so.9",
          "libcudnn_adv.so.9");

  private static String driver;

  private CudaLibraries() {}

  /**
   * Name or path of the driver. Throws DeviceException that names what is missing and how to get
   * it; again for every later call.
   */
  static synchronized String load() {
    if (driver == null) {
      driver = loadAll();
    }
    return driver;
  }

  private static String loadAll() {
    NativeLibrary.load();
    if (CudaOps.toolkitVersion() == 0) {
      throw missing(
          "this build has no CUDA kernels, because nvcc was not found",
          "install the CUDA toolkit 13.0 (or set CUDA_HOME) and run 'mvn package' again");
    }
    String folder = System.getProperty(FOLDER);
    String driverName = DRIVER;
    if (folder != null && Files.exists(Path.of(folder, DRIVER))) {
      driverName = path(folder, DRIVER); // only the stand-ins of the tests come with a driver
    }
    open(
        driverName,
        "the NVIDIA driver (R525 or newer)",
        "install the driver of this machine's GPU");
    String how = howToGet();
    for (String file : BLAS) {
      open(path(folder, file), "cuBLAS 12", how);
    }
    for (String part : DNN_PARTS) { // they lie in a folder of ours, where cuDNN would not look
      if (folder != null && Files.exists(Path.of(folder, part))) {
        open(path(folder, part), "cuDNN 9", how);
      }
    }
    open(path(folder, DNN), "cuDNN 9", how);
    loadJCuda();
    return driverName;
  }

  private static String path(String folderOrNull, String file) {
    return folderOrNull == null ? file : Path.of(folderOrNull, file).toAbsolutePath().toString();
  }

  private static void open(String nameOrPath, String what, String how) {
    try {
      CudaOps.openLibrary(nameOrPath);
    } catch (NativeException e) {
      throw missing(what + " cannot be loaded: " + e.getMessage(), how);
    }
  }

  static String howToGet() {
    String folder = System.getProperty(FOLDER);
    return folder == null
        ? "install it (CUDA 12 and cuDNN 9), or build with 'mvn package -Pcuda-redist', which brings it"
        : "-D" + FOLDER + "=" + folder + " names where it comes from: correct or drop it";
  }

  static DeviceException missing(String what, String how) {
    return new DeviceException(
        "cuda", 0, "backend cuda: " + what + "; " + how + ", or choose backend: cpu", true);
  }

  /**
   * JCuda would copy its natives to fixed names in the temp folder, which collide between users; it
   * leaves a file that is there alone, so the folder of our own natives is its temp folder while
   * its classes load. It logs each attempt, which helps nobody.
   */
  private static void loadJCuda() {
    Logger log = Logger.getLogger("jcuda.LibUtils");
    Level level = log.getLevel();
    log.setLevel(Level.OFF);
    String temp = System.getProperty("java.io.tmpdir");
    System.setProperty("java.io.tmpdir", NativeLibrary.folder().toString());
    try {
      JCudaDriver.setExceptionsEnabled(true);
      JCublas2.setExceptionsEnabled(true);
      JCudnn.setExceptionsEnabled(true);
    } catch (UnsatisfiedLinkError | ExceptionInInitializerError e) {
      throw missing(
          "JCuda's natives cannot be loaded: " + e.getMessage().lines().findFirst().orElse(""),
          "cuBLAS must be of CUDA 12 and cuDNN 9");
    } finally {
      System.setProperty("java.io.tmpdir", temp);
      log.setLevel(level);
    }
  }

  /** What is loaded, for people: each file of this process that is NVIDIA's. */
  static List<String> loaded() {
    List<String> files = new ArrayList<>();
    try {
      for (String line : Files.readAllLines(Path.of("/proc/self/maps"))) {
        int slash = line.indexOf('/');
        String file = slash < 0 ? "" : line.substring(slash);
        String name = file.substring(file.lastIndexOf('/') + 1);
        if (name.matches("lib(cuda|cublas|cublasLt|cudnn\\w*|nvrtc)\\.so.*")
            && !files.contains(file)) {
          files.add(file);
        }
      }
    } catch (java.io.IOException e) {
      throw new java.io.UncheckedIOException("cannot read /proc/self/maps", e);
    }
    return files;
  }
}
