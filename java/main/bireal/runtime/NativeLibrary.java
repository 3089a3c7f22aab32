package bireal.runtime;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;

/**
 * Loads libbireal.so once, when a backend is first constructed. Order: the file named by the system
 * property {@code bireal.library} (no fallback if that fails), else the natives beside the classes,
 * else those in the jar, unpacked to a cache folder named by their checksums.
 */
public final class NativeLibrary {
  /**
   * Must equal kAbi in native/jni/library_jni.cpp; raised with every change of a native signature.
   */
  public static final int ABI = 7;

  /** System property that names the library file. */
  public static final String OVERRIDE = "bireal.library";

  private static final String FOLDER = "/native/linux-x86_64/";

  /** Load order: each needs the ones before it. */
  private static final List<String> FILES = List.of("libgomp.so.1", "libdnnl.so.3", "libbireal.so");

  /** For the CUDA backend, which loads them by itself: {@link #folder}. */
  private static final List<String> JCUDA =
      List.of(
          "libJCudaDriver-12.6.0-linux-x86_64.so",
          "libJCublas2-12.6.0-linux-x86_64.so",
          "libJCudnn-12.6.0-linux-x86_64.so");

  private static Path library;

  private NativeLibrary() {}

  /**
   * Loads the library; later calls do nothing. Throws NativeException naming file, system and fix.
   */
  public static synchronized void load() {
    if (library != null) {
      return;
    }
    String override = System.getProperty(OVERRIDE);
    Path file = override != null ? Path.of(override).toAbsolutePath() : locate();
    if (!Files.isRegularFile(file)) {
      throw new NativeException(
          "native library "
              + file
              + " does not exist ("
              + system()
              + "); "
              + (override != null
                  ? "correct or drop -D" + OVERRIDE
                  : "build it with 'mvn package'"));
    }
    try {
      System.load(file.toString());
    } catch (UnsatisfiedLinkError e) {
      throw new NativeException(
          "cannot load native library "
              + file
              + " ("
              + system()
              + "): "
              + e.getMessage()
              + "; it is built for Linux on x86-64 with glibc >= 2.34: rebuild it here with 'mvn package'",
          e);
    }
    int abi = abi();
    if (abi != ABI) {
      throw new NativeException(
          "native library "
              + file
              + " has ABI "
              + abi
              + " but these classes need "
              + ABI
              + ": both must come from one build; run 'mvn package'");
    }
    library = file;
  }

  /** Where the library that is loaded lies, with JCuda's natives beside it. */
  public static synchronized Path folder() {
    load();
    return library.getParent();
  }

  private static String system() {
    return System.getProperty("os.name") + " " + System.getProperty("os.arch");
  }

  private static Path locate() {
    URL url = NativeLibrary.class.getResource(FOLDER + "libbireal.so");
    if (url == null) {
      throw new NativeException(
          "native library "
              + FOLDER
              + "libbireal.so is not on the class path ("
              + system()
              + "); build it with 'mvn package'");
    }
    try {
      return url.getProtocol().equals("file") ? Path.of(new URI(url.toString())) : unpack();
    } catch (IOException e) {
      throw new UncheckedIOException("cannot unpack the native libraries to the cache folder", e);
    } catch (URISyntaxException e) {
      throw new NativeException("cannot read the location of the native library " + url, e);
    }
  }

  /**
   * Unpacks all files into one folder, complete or not at all: a half-written one is never seen.
   */
  private static Path unpack() throws IOException {
    StringBuilder key = new StringBuilder();
    List<String> files = new ArrayList<>(FILES);
    files.addAll(JCUDA);
    for (String file : files) {
      try (InputStream in = resource(file + ".SHA-256")) {
        key.append(new String(in.readAllBytes(), StandardCharsets.US_ASCII).strip(), 0, 12);
      }
    }
    String cache = System.getenv("XDG_CACHE_HOME");
    Path base =
        cache != null && !cache.isBlank()
            ? Path.of(cache)
            : Path.of(System.getProperty("user.home"), ".cache");
    Path folder = base.resolve("bireal").resolve("native-" + key);
    if (!Files.isDirectory(folder)) {
      Files.createDirectories(folder.getParent());
      Path partial = Files.createTempDirectory(folder.getParent(), "partial-");
      for (String file : files) {
        try (InputStream in = resource(file)) {
          Files.copy(in, partial.resolve(file), StandardCopyOption.REPLACE_EXISTING);
        }
      }
      publish(partial, folder);
    }
    return folder.resolve("libbireal.so");
  }

  /**
   * Gives the folder its name. Another process may have been quicker: Linux then says that the
   * target is a directory that is not empty, for which Java has no exception of its own.
   */
  static void publish(Path partial, Path folder) throws IOException {
    try {
      Files.move(partial, folder, StandardCopyOption.ATOMIC_MOVE);
    } catch (FileSystemException e) {
      if (!Files.isDirectory(folder)) {
        throw e;
      }
      try (Stream<Path> files = Files.list(partial)) {
        for (Path file : files.toList()) {
          Files.delete(file);
        }
      }
      Files.delete(partial);
    }
  }

  private static InputStream resource(String file) throws IOException {
    InputStream in = NativeLibrary.class.getResourceAsStream(FOLDER + file);
    if (in == null) {
      throw new IOException(
          "the jar lacks " + FOLDER + file + ": it was not packed by 'mvn package'");
    }
    return in;
  }

  private static native int abi();

  /** Raises one exception of each kind that native code can raise; only tests call it. */
  static native void provoke(int kind);
}
