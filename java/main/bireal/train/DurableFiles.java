package bireal.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/** Writes that survive a crash of the process or the machine once the call has returned. */
final class DurableFiles {
  static final String TMP = ".tmp";

  private DurableFiles() {}

  /** Makes creations, renames and deletions in the folder durable. */
  static void syncFolder(Path folder) throws IOException {
    try (FileChannel channel = FileChannel.open(folder, StandardOpenOption.READ)) {
      channel.force(true);
    }
  }

  /** Creates the file, which must not exist; the folder is left to the caller to sync. */
  static void writeNew(Path file, byte[] content) throws IOException {
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
      ByteBuffer bytes = ByteBuffer.wrap(content);
      while (bytes.hasRemaining()) {
        channel.write(bytes);
      }
      channel.force(true);
    }
  }

  /** The file holds its old content or the new one, at every moment. */
  static void replace(Path file, byte[] content) throws IOException {
    Path tmp = file.resolveSibling(file.getFileName() + TMP);
    Files.deleteIfExists(tmp);
    writeNew(tmp, content);
    rename(tmp, file);
    syncFolder(file.toAbsolutePath().getParent());
  }

  static void rename(Path from, Path to) throws IOException {
    Files.move(from, to, StandardCopyOption.ATOMIC_MOVE);
  }

  static boolean exists(Path path) {
    return Files.exists(path, LinkOption.NOFOLLOW_LINKS);
  }

  /** What lies in a folder, by name. */
  static List<Path> children(Path folder) throws IOException {
    try (Stream<Path> children = Files.list(folder)) {
      return children.sorted().toList();
    }
  }

  /** Removes a file or folder with all that is in it; links are removed, not followed. */
  static void deleteTree(Path root) throws IOException {
    List<Path> all;
    try (Stream<Path> walk = Files.walk(root)) {
      all = walk.sorted(Comparator.reverseOrder()).toList();
    } catch (NoSuchFileException e) {
      return; // nothing there: what was asked for
    }
    for (Path path : all) {
      Files.deleteIfExists(path);
    }
  }

  /** Free space for a message: of the nearest folder that exists. */
  static String freeBytes(Path folder) {
    Path path = folder.toAbsolutePath();
    while (path != null && !Files.isDirectory(path)) {
      path = path.getParent();
    }
    try {
      return path == null ? "unknown" : Long.toString(Files.getFileStore(path).getUsableSpace());
    } catch (IOException e) {
      return "unknown (" + e.getMessage() + ")";
    }
  }
}
