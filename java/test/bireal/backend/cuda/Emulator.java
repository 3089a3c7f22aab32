package bireal.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * The stand-in CUDA libraries (native/emulator) of this process: {@link #load} before the first
 * JCuda class. Keys: native/emulator/platform/control.h.
 */
final class Emulator {
  private static boolean loaded;

  private Emulator() {}

  /** Loads the stand-ins by path, so that JCuda finds them and no real library. */
  static synchronized void load() {
    if (loaded) {
      return;
    }
    String folder = System.getProperty("bireal.emulator");
    if (folder == null || !Files.exists(Path.of(folder, "libbireal_emulator_control.so"))) {
      throw new IllegalStateException(
          "no emulator in bireal.emulator="
              + folder
              + "; build it: cmake --build target/native-test --target emulator (Maven does it"
              + " before its tests)");
    }
    for (String file :
        List.of(
            "libcuda.so.1",
            "libcublasLt.so.12",
            "libcublas.so.12",
            "libcudnn.so.9",
            "libbireal_emulator_control.so")) {
      System.load(Path.of(folder, file).toAbsolutePath().toString());
    }
    loaded = true;
  }

  static void set(String key, long value) {
    assertEquals(0, set0(key, value), () -> lastError0());
  }

  static long get(String key) {
    return get0(key);
  }

  static List<String> findings() {
    List<String> all = new ArrayList<>();
    for (String text = finding0(0); text != null; text = finding0(all.size())) {
      all.add(text);
    }
    return all;
  }

  /** Names of the kernels, library calls, copies and memsets that ran, in order. */
  static List<String> records() {
    List<String> all = new ArrayList<>();
    for (String name = recordName0(0); name != null; name = recordName0(all.size())) {
      all.add(name);
    }
    return all;
  }

  /** Why the last refused call of this thread was refused. */
  static String lastError() {
    return lastError0();
  }

  static void clear() {
    clear0();
  }

  static void reset() {
    reset0();
  }

  private static native int set0(String key, long value);

  private static native long get0(String key);

  private static native String finding0(long i);

  private static native String lastError0();

  private static native String recordName0(long i);

  private static native void clear0();

  private static native void reset0();
}
