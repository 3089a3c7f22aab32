package bireal.tools;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.data.DataException;
import bireal.runtime.InputException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Seconds of what {@code scripts/fuzz.sh} does for minutes, the same inputs each time. */
class FuzzTest {
  private static final long SEED = 20261127;

  /** About a second each where checking a file takes longest. */
  private static final Map<String, Integer> INPUTS =
      Map.of("config", 400, "images", 500, "labels", 500, "case", 800, "log", 300, "override", 400);

  private static final int OTHER_INPUTS = 2000;

  @TempDir Path folder;

  static List<Fuzz.Target> targets() {
    return FuzzTargets.all();
  }

  @ParameterizedTest
  @MethodSource("targets")
  void damagedFilesAreReadOrRefusedAndNothingElse(Fuzz.Target target) throws IOException {
    Fuzz fuzz = new Fuzz(folder, SEED, List.of(target));
    try {
      assertTimeoutPreemptively(
          Duration.ofSeconds(60),
          () -> fuzz.inputs(target, INPUTS.getOrDefault(target.name(), OTHER_INPUTS)));
    } catch (Fuzz.Failure e) {
      Path saved = Files.createDirectories(Path.of("target", "fuzz"));
      Path input = Files.write(saved.resolve("failed-" + target.name()), fuzz.current());
      throw new AssertionError(
          e.getMessage()
              + "; see it again: scripts/fuzz.sh --replay "
              + input
              + " "
              + target.name(),
          e);
    }
    System.out.println("fuzz: " + target.name() + ": " + fuzz.counts().get(target).text());
    fuzz.requireBoth();
  }

  /** A reader that does what its input says. */
  private static final class Bad implements Fuzz.Target {
    private final String input;
    private final Runnable reader;
    private Path file;

    Bad(String input, Runnable reader) {
      this.input = input;
      this.reader = reader;
    }

    @Override
    public String name() {
      return "bad";
    }

    @Override
    public Path prepare(Path own) throws IOException {
      file = own.resolve("file");
      Files.writeString(file, "valid");
      return file;
    }

    @Override
    public byte[] next(Random random) {
      return input.getBytes(StandardCharsets.UTF_8);
    }

    @Override
    public void read() throws IOException {
      if (!Files.readString(file).equals("valid")) {
        reader.run();
      }
    }

    @Override
    public Class<? extends InputException> refusal() {
      return DataException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return 1 << 20;
    }
  }

  private String failure(Runnable reader) throws IOException {
    Bad target = new Bad("bad", reader);
    Fuzz fuzz = new Fuzz(folder, SEED, List.of(target));
    return assertThrows(Fuzz.Failure.class, () -> fuzz.inputs(target, 1)).getMessage();
  }

  @Test
  void eachRuleIsSeenToFail() throws IOException {
    Path file = folder.resolve("bad").resolve("file");
    assertTrue(failure(() -> List.of().get(1)).contains("threw java.lang.ArrayIndexOutOf"));
    assertTrue(
        failure(
                () -> {
                  throw new OutOfMemoryError("heap");
                })
            .contains("threw java.lang.OutOfMemoryError"));
    assertTrue(
        failure(
                () -> {
                  throw new InputException(file + ": damaged");
                })
            .contains("threw bireal.runtime.InputException"));
    assertTrue(
        failure(
                () -> {
                  throw new DataException("damaged");
                })
            .contains("does not name the place"));
    assertTrue(
        failure(
                () -> {
                  throw new DataException(file + ": \u001b[31m");
                })
            .contains("control characters"));
    assertTrue(
        failure(
                () -> {
                  throw new DataException(file + ": " + "x".repeat(5000));
                })
            .contains("characters"));
    byte[][] kept = new byte[1][];
    assertTrue(failure(() -> kept[0] = new byte[3 << 20]).contains("allocated"));
    assertEquals(3 << 20, kept[0].length);
  }
}
