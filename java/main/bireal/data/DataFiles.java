package bireal.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/** What the readers share: finding files and reading them within a bound, with errors that help. */
final class DataFiles {
  private DataFiles() {}

  /** The folder {@code data.path}; {@code fix} ends the message if it is none. */
  static Path folder(String dataset, String path, String fix) {
    if (path.isEmpty()) {
      throw new DataException(dataset + ": data.path is empty; " + fix);
    }
    Path folder;
    try {
      folder = Path.of(path);
    } catch (InvalidPathException e) {
      throw new DataException(dataset + ": data.path is not a path: " + e.getMessage(), e);
    }
    if (!Files.isDirectory(folder)) {
      String found = Files.exists(folder) ? " is not a folder; " : " does not exist; ";
      throw new DataException(dataset + ": data.path " + folder.toAbsolutePath() + found + fix);
    }
    return folder;
  }

  /** The whole file, which must exist and have at most {@code limitBytes}. */
  static byte[] read(Path file, long limitBytes, String fix) {
    if (!Files.isRegularFile(file)) {
      String found = Files.exists(file) ? ": not a regular file; " : ": no such file; ";
      throw new DataException(file + found + fix);
    }
    try (var in = Files.newInputStream(file)) {
      long bytes = Files.size(file);
      if (bytes > limitBytes) {
        throw new DataException(
            file + ": expected at most " + limitBytes + " bytes, found " + bytes + "; " + fix);
      }
      // The size is a hint: the file may change meanwhile, so the bound is kept while reading too.
      byte[] content = in.readNBytes((int) bytes);
      if (content.length != bytes || in.read() >= 0) {
        throw new DataException(file + ": changed while it was read");
      }
      return content;
    } catch (IOException e) {
      throw new DataException(file + ": cannot be read: " + e, e);
    }
  }

  /** Refuses labels outside 0..classes-1. */
  static void checkLabels(Path file, byte[] labels, int classes, String fix) {
    for (int i = 0; i < labels.length; i++) {
      int label = Byte.toUnsignedInt(labels[i]);
      if (label >= classes) {
        throw new DataException(
            String.format(
                "%s: record %d has label %d, expected 0..%d; %s",
                file, i, label, classes - 1, fix));
      }
    }
  }
}
