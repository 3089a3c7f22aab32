package bireal.backend.cpu;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** What Linux says about free memory, of the machine and of the container. */
final class FreeMemory {
  private FreeMemory() {}

  /** Bytes of memory that can still be taken, as far as the system tells. */
  static long bytes() {
    long available = meminfo();
    // A container's limit counts before the machine's memory.
    long limit = number(Path.of("/sys/fs/cgroup/memory.max"));
    long used = number(Path.of("/sys/fs/cgroup/memory.current"));
    if (limit <= 0 || used < 0) {
      return available;
    }
    // Cached file pages count as used, but make way.
    long reclaimable = Math.max(0, field(Path.of("/sys/fs/cgroup/memory.stat"), "inactive_file "));
    return Math.min(available, Math.max(0, limit - used + reclaimable));
  }

  private static long meminfo() {
    long kilobytes = field(Path.of("/proc/meminfo"), "MemAvailable:");
    return kilobytes < 0 ? Long.MAX_VALUE : kilobytes * 1024;
  }

  /** The number behind {@code name} at the start of a line; -1 where there is none. */
  private static long field(Path file, String name) {
    try {
      for (String line : Files.isReadable(file) ? Files.readAllLines(file) : List.<String>of()) {
        if (line.startsWith(name)) {
          return Long.parseLong(line.substring(name.length()).replaceAll("[^0-9]", ""));
        }
      }
      return -1;
    } catch (IOException e) {
      throw new UncheckedIOException("cannot read " + file, e);
    }
  }

  /** The number in a one-number file; -1 where there is no such file or it says "max". */
  private static long number(Path file) {
    try {
      String text = Files.isReadable(file) ? Files.readString(file).strip() : "max";
      return text.equals("max") ? -1 : Long.parseLong(text);
    } catch (IOException | NumberFormatException e) {
      return -1; // no limit known: the machine's own memory decides
    }
  }
}
