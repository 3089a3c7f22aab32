package bireal.runtime;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class NativeLoadTest {
  @TempDir Path folder;

  @Test
  void everyKindOfNativeErrorBecomesItsJavaException() {
    NativeLibrary.load();
    assertEquals(
        "provoked argument",
        assertThrows(IllegalArgumentException.class, () -> NativeLibrary.provoke(0)).getMessage());
    assertEquals(
        "native heap",
        assertThrows(OutOfMemoryError.class, () -> NativeLibrary.provoke(1)).getMessage());
    assertEquals(
        "provoked error",
        assertThrows(NativeException.class, () -> NativeLibrary.provoke(2)).getMessage());
    DeviceException device = assertThrows(DeviceException.class, () -> NativeLibrary.provoke(3));
    assertEquals("provoked_op", device.op());
    assertEquals(700, device.code());
    assertTrue(device.fatal());
    assertEquals("provoked_op failed: PROVOKED (700)", device.getMessage());
    assertEquals(
        "unknown C++ exception",
        assertThrows(NativeException.class, () -> NativeLibrary.provoke(4)).getMessage());
  }

  @Test
  void closedHandleRefusesItsPointerAndClosesOnce() {
    int[] freed = {0};
    NativeHandle handle = new NativeHandle("thing", 42, pointer -> freed[0] += (int) pointer) {};
    assertEquals(42, handle.pointer());
    handle.close();
    handle.close();
    assertEquals(42, freed[0]);
    assertEquals(
        "thing is closed", assertThrows(IllegalStateException.class, handle::pointer).getMessage());
  }

  @Test
  void ofTwoProcessesThatUnpackAtOnceTheSlowerOneTakesTheOthersFolder() throws Exception {
    Path first = Files.createDirectory(folder.resolve("partial-1"));
    Path second = Files.createDirectory(folder.resolve("partial-2"));
    Files.writeString(first.resolve("libbireal.so"), "first");
    Files.writeString(second.resolve("libbireal.so"), "second");
    Path unpacked = folder.resolve("native-0");
    NativeLibrary.publish(first, unpacked);
    NativeLibrary.publish(second, unpacked);
    assertEquals("first", Files.readString(unpacked.resolve("libbireal.so")));
    assertFalse(Files.exists(first) || Files.exists(second));

    Path other = Files.createDirectory(folder.resolve("partial-3"));
    Path file = Files.writeString(folder.resolve("a file"), "");
    assertThrows(IOException.class, () -> NativeLibrary.publish(other, file));
    assertTrue(Files.exists(other));
  }

  @Test
  void overridePathThatDoesNotExistIsAnErrorAndNoFallback() throws Exception {
    Path missing = folder.resolve("none.so");
    String output = load(missing);
    assertTrue(output.contains("native library " + missing + " does not exist"), output);
    assertTrue(output.contains("correct or drop -Dbireal.library"), output);
  }

  @Test
  void overrideThatIsNoLibraryNamesFileSystemAndFix() throws Exception {
    Path text = Files.writeString(folder.resolve("text.so"), "not a library");
    String output = load(text);
    assertTrue(output.contains("cannot load native library " + text), output);
    assertTrue(output.contains("mvn package"), output);
    assertFalse(output.contains("LOAD-DONE"), output);
  }

  /** Runs {@link Load} in a JVM of its own: a process loads a library once. */
  private static String load(Path library) throws IOException, InterruptedException {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Dbireal.library=" + library,
                "-cp",
                System.getProperty("java.class.path"),
                Load.class.getName()));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    process.waitFor();
    return output;
  }

  /** The program that {@link #load} runs. */
  static final class Load {
    private Load() {}

    @SuppressWarnings("EffectivelyPrivate") // started as a program of its own
    public static void main(String[] args) {
      try {
        NativeLibrary.load();
        System.out.println("LOAD-DONE");
      } catch (NativeException e) {
        System.out.println(e.getMessage());
      }
    }
  }
}
