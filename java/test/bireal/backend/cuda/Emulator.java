package bireal.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import bireal.runtime.NativeLibrary;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The stand-in CUDA libraries (native/emulator) of this process: {@link #load} before the first
 * JCuda class. Keys: native/emulator/platform/control.h.
 *
 * <p>With the environment's BIREAL_TEST_CUDA (as native/testing/cuda_testing.h has it) the same
 * tests run on the real device and its libraries: nothing is loaded, nothing is found, and counts
 * are 0. Tests of the emulator itself then are skipped, those that inject a fault too.
 */
public final class Emulator {
  /** What BIREAL_TEST_CUDA must be, so that nobody believes another library was tested. */
  private static final String REAL = "libcuda.so.1";

  private static boolean loaded;

  private Emulator() {}

  /** False if the tests of this process run on a real device. */
  public static boolean emulated() {
    String named = System.getenv("BIREAL_TEST_CUDA");
    if (named != null && !named.equals(REAL)) {
      throw new IllegalStateException("BIREAL_TEST_CUDA must be " + REAL + ", got " + named);
    }
    return named == null;
  }

  /** Where the stand-ins lie. */
  public static Path folder() {
    String folder = System.getProperty("bireal.emulator");
    if (folder == null || !Files.exists(Path.of(folder, "libbireal_emulator_control.so"))) {
      throw new IllegalStateException(
          "no emulator in bireal.emulator="
              + folder
              + "; build it: cmake --build target/native-test --target emulator (Maven does it"
              + " before its tests)");
    }
    return Path.of(folder).toAbsolutePath();
  }

  /** From here on the CUDA backend of this process runs on the stand-ins. */
  public static synchronized void load() {
    if (loaded || !emulated()) {
      return;
    }
    NativeLibrary.load();
    // scripts/test.sh says so aloud, and fails where it must not be.
    assumeTrue(
        CudaOps.toolkitVersion() > 0, "built without CUDA kernels, because there is no nvcc");
    for (String option : options()) {
      String[] parts = option.substring(2).split("=", 2);
      System.setProperty(parts[0], parts[1]);
    }
    CudaLibraries.load();
    System.load(folder().resolve("libbireal_emulator_control.so").toString());
    loaded = true;
  }

  /** For the Java of another process: its CUDA backend runs where this one's does. */
  public static List<String> options() {
    if (!emulated()) {
      String folder = System.getProperty(CudaLibraries.FOLDER);
      return folder == null ? List.of() : List.of("-D" + CudaLibraries.FOLDER + "=" + folder);
    }
    return List.of(
        "-D" + CudaLibraries.FOLDER + "=" + folder(),
        "-D" + CudaBackend.IMAGES + "=PTX",
        "-D" + CudnnAlgorithms.FILE + "=none",
        "-D" + CudaBackend.UNMEASURED + "=true");
  }

  /** On a real device the test is skipped. */
  public static void set(String key, long value) {
    assumeTrue(emulated(), "sets " + key + " of the emulator");
    assertEquals(0, set0(key, value), () -> lastError0());
  }

  public static long get(String key) {
    return emulated() ? get0(key) : 0;
  }

  public static List<String> findings() {
    List<String> all = new ArrayList<>();
    for (String text = emulated() ? finding0(0) : null; text != null; text = finding0(all.size())) {
      all.add(text);
    }
    return all;
  }

  /** Names of the kernels, library calls, copies and memsets that ran, in order. */
  public static List<String> records() {
    List<String> all = new ArrayList<>();
    for (String name = recordName0(0); name != null; name = recordName0(all.size())) {
      all.add(name);
    }
    return all;
  }

  /** What kind of work a record is; values of native/emulator/platform/control.h. */
  public enum Kind {
    KERNEL,
    LIBRARY,
    COPY,
    MEMSET,
    HOST
  }

  /**
   * Counters of one kernel, library call, copy or memset (control.h). Sectors are of 32 bytes;
   * {@code requested} by the warps, {@code ideal} if each access were without gaps.
   */
  public record Work(
      String name,
      Kind kind,
      long readBytes,
      long writtenBytes,
      long readSectors,
      long writtenSectors,
      long requestedSectors,
      long idealSectors,
      int worstBankConflict,
      long threadInstructions,
      boolean replayed,
      long gridX,
      long gridY,
      long gridZ) {
    /** Distinct sectors, in bytes. */
    public long sectorBytes() {
      return 32 * (readSectors + writtenSectors);
    }

    public long blocks() {
      return gridX * gridY * gridZ;
    }
  }

  /** All that ran, in order. */
  public static List<Work> allRecords() {
    List<Work> all = new ArrayList<>();
    for (long[] v = record0(0); v != null; v = record0(all.size())) {
      all.add(
          new Work(
              recordName0(all.size()),
              Kind.values()[(int) v[0]],
              v[1],
              v[2],
              v[3],
              v[4],
              v[5],
              v[6],
              (int) v[7],
              v[8],
              v[9] != 0,
              v[10],
              v[11],
              v[12]));
    }
    return all;
  }

  /** Why the last refused call of this thread was refused. */
  public static String lastError() {
    return lastError0();
  }

  public static void clear() {
    if (emulated()) {
      clear0();
    }
  }

  public static void reset() {
    if (emulated()) {
      reset0();
    }
  }

  private static native int set0(String key, long value);

  private static native long get0(String key);

  private static native String finding0(long i);

  private static native String lastError0();

  private static native String recordName0(long i);

  private static native long[] record0(long i);

  private static native void clear0();

  private static native void reset0();
}
