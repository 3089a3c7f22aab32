package bireal.train;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayDeque;
import java.util.function.Consumer;

/**
 * {@code log.jsonl}: one JSON object a line, each with an "event" and a "step". Owned by the run;
 * one thread. A line is in the hands of the operating system when {@link #append} returns; one that
 * could not be written stays in memory and is tried again, in its order, by the next call.
 */
public final class RunLog implements AutoCloseable {
  private static final int MAX_LINE_BYTES = 16 << 20;

  private final Path file;
  private final FileChannel channel;
  private final Dropped dropped;
  private final ArrayDeque<byte[]> pending = new ArrayDeque<>();

  /**
   * What opening took away.
   *
   * @param laterLines lines of steps after the one to resume from
   * @param tornLine whether the last line was incomplete
   */
  public record Dropped(long laterLines, boolean tornLine) {}

  private RunLog(Path file, FileChannel channel, Dropped dropped) {
    this.file = file;
    this.channel = channel;
    this.dropped = dropped;
  }

  /**
   * Opens the log to go on after a step: lines of later steps and a last line without its end are
   * dropped, all else stays as it is, byte for byte. Creates the file if there is none. Throws
   * RunFolderException if another line cannot be read.
   */
  public static RunLog open(Path file, long step) {
    return open(file, step, place -> {});
  }

  static RunLog open(Path file, long step, Consumer<String> faultPoint) {
    try {
      Path tmp = file.resolveSibling(file.getFileName() + DurableFiles.TMP);
      Files.deleteIfExists(tmp);
      Dropped dropped = new Dropped(0, false);
      if (Files.exists(file)) {
        boolean same;
        try (OutputStream kept =
            new BufferedOutputStream(
                Files.newOutputStream(
                    tmp, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE))) {
          dropped = copyUpTo(file, step, kept);
        }
        same = Files.size(tmp) == Files.size(file);
        if (same) {
          Files.delete(tmp);
        } else {
          faultPoint.accept("before syncing");
          sync(tmp);
          faultPoint.accept("before the rename");
          DurableFiles.rename(tmp, file);
          faultPoint.accept("after the rename");
        }
      }
      FileChannel channel =
          FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
      DurableFiles.syncFolder(file.toAbsolutePath().getParent());
      return new RunLog(file, channel, dropped);
    } catch (IOException e) {
      throw failed(file, "open", e);
    }
  }

  public Dropped dropped() {
    return dropped;
  }

  /** For the fields of a line, in the order in which they will be written. */
  public static ObjectNode fields() {
    return StrictJson.newObject();
  }

  /**
   * Appends a line: event, step, then the fields. NaN and infinities are written as strings, JSON
   * has no numbers for them. If it fails (RunFolderException) no part of the line stays in the
   * file.
   */
  public void append(String event, long step, ObjectNode fields) {
    if (fields.has("event") || fields.has("step")) {
      throw new IllegalArgumentException("event and step are arguments, got fields " + fields);
    }
    try {
      ObjectNode line = StrictJson.newObject().put("event", event).put("step", step);
      line.setAll(fields);
      pending.add(StrictJson.line(line));
    } catch (IOException e) {
      throw failed(file, "write", e);
    }
    writePending();
  }

  private void writePending() {
    long before = -1;
    try {
      while (!pending.isEmpty()) {
        ByteBuffer bytes = ByteBuffer.wrap(pending.getFirst());
        before = channel.size();
        while (bytes.hasRemaining()) {
          channel.write(bytes);
        }
        pending.removeFirst();
      }
    } catch (IOException e) {
      if (before >= 0) {
        try {
          channel.truncate(before);
        } catch (IOException again) {
          e.addSuppressed(again);
        }
      }
      throw failed(file, "write", e);
    }
  }

  /** Makes all lines durable; call before saving a checkpoint, which must not outlive them. */
  public void sync() {
    writePending();
    try {
      channel.force(true);
    } catch (IOException e) {
      throw failed(file, "write", e);
    }
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw failed(file, "close", e);
    }
  }

  private static Dropped copyUpTo(Path file, long step, OutputStream kept) throws IOException {
    long laterLines = 0;
    long number = 0;
    try (InputStream in = new BufferedInputStream(Files.newInputStream(file))) {
      ByteArrayOutputStream line = new ByteArrayOutputStream();
      while (true) {
        number++;
        line.reset();
        boolean ended = readLine(in, line, file, number);
        if (!ended && line.size() == 0) {
          return new Dropped(laterLines, false);
        }
        JsonNode found;
        try {
          found = StrictJson.parseObject(line.toByteArray()).path("step");
        } catch (IOException e) {
          if (!ended) {
            return new Dropped(laterLines, true);
          }
          throw malformed(file, number, e.getMessage());
        }
        if (!found.isIntegralNumber() || !found.canConvertToLong()) {
          throw malformed(file, number, "no whole number as \"step\"");
        }
        if (found.longValue() <= step) {
          line.write('\n'); // also where only the line's end was lost
          line.writeTo(kept);
        } else {
          laterLines++;
        }
      }
    }
  }

  /** Reads to the next LF, which it leaves out; false if the file ended first. */
  private static boolean readLine(
      InputStream in, ByteArrayOutputStream line, Path file, long number) throws IOException {
    for (int b = in.read(); b >= 0; b = in.read()) {
      if (b == '\n') {
        return true;
      }
      if (line.size() == MAX_LINE_BYTES) {
        throw malformed(file, number, "more than " + MAX_LINE_BYTES + " bytes");
      }
      line.write(b);
    }
    return false;
  }

  private static void sync(Path file) throws IOException {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      channel.force(true);
    }
  }

  private static RunFolderException malformed(Path file, long number, String found) {
    return new RunFolderException(
        file
            + ": line "
            + number
            + ": found "
            + found
            + ", expected one JSON object with a step; correct or remove that line");
  }

  private static RunFolderException failed(Path file, String verb, IOException e) {
    return new RunFolderException(
        "cannot "
            + verb
            + " "
            + file
            + ": "
            + e
            + " ("
            + DurableFiles.freeBytes(file)
            + " bytes are free there); make room or correct the folder, then resume",
        e);
  }
}
