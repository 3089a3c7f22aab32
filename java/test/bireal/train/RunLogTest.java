package bireal.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RunLogTest {
  private static final String LINES =
      """
      {"event":"train","step":1,"loss":2.5}
      {"event":"eval","step":1,"top1":0.5}
      {"event":"train","step":2,"loss":2.25}
      {"event":"train","step":3,"loss":2.0}
      """;

  @TempDir Path temp;
  private Path file;

  @BeforeEach
  void nameTheFile() {
    file = temp.resolve("log.jsonl");
  }

  private RunLog.Dropped open(long step) {
    try (RunLog log = RunLog.open(file, step)) {
      return log.dropped();
    }
  }

  @Test
  void linesAreThereAsSoonAsTheyAreAppended() throws Exception {
    try (RunLog log = RunLog.open(file, 0)) {
      log.append("train", 1, RunLog.fields().put("loss", 2.5).put("rate", 1e-3f));
      assertEquals(
          "{\"event\":\"train\",\"step\":1,\"loss\":2.5,\"rate\":0.001}\n", Files.readString(file));
      log.append("eval", 1, RunLog.fields().put("loss", Double.NaN).put("note", "a\nb"));
      log.sync();
    }
    assertEquals(
        "{\"event\":\"eval\",\"step\":1,\"loss\":\"NaN\",\"note\":\"a\\nb\"}",
        Files.readAllLines(file).get(1));
    assertThrows(RunFolderException.class, () -> RunLog.open(temp.resolve("no/log.jsonl"), 0));
  }

  @Test
  void eventAndStepAreNoFields() {
    try (RunLog log = RunLog.open(file, 0)) {
      assertThrows(
          IllegalArgumentException.class,
          () -> log.append("train", 1, RunLog.fields().put("step", 2)));
    }
  }

  @Test
  void resumingDropsTheLinesOfLaterSteps() throws Exception {
    Files.writeString(file, LINES);
    assertEquals(new RunLog.Dropped(0, false), open(3));
    assertEquals(LINES, Files.readString(file));
    assertEquals(new RunLog.Dropped(2, false), open(1));
    assertEquals(LINES.lines().limit(2).toList(), Files.readAllLines(file));
    assertEquals(new RunLog.Dropped(0, false), open(1));
    try (RunLog log = RunLog.open(file, 1)) {
      log.append("train", 2, RunLog.fields().put("loss", 2.25));
      log.append("train", 3, RunLog.fields().put("loss", 2.0));
    }
    assertEquals(LINES, Files.readString(file), "as if the run had not stopped");
    assertEquals(new RunLog.Dropped(4, false), open(0));
    assertEquals("", Files.readString(file));
    assertEquals(List.of(file), DurableFiles.children(temp), "nothing else is left");
  }

  @Test
  void aTornLastLineIsDroppedWhereverItWasTorn() throws Exception {
    String torn = "{\"event\":\"train\",\"step\":4,\"loss\":1.75}";
    for (int length = 1; length < torn.length(); length++) {
      Files.writeString(file, LINES + torn.substring(0, length));
      assertEquals(new RunLog.Dropped(0, true), open(4), torn.substring(0, length));
      assertEquals(LINES, Files.readString(file));
    }
    Files.writeString(file, LINES + "\0".repeat(500)); // what a power failure leaves
    assertEquals(new RunLog.Dropped(0, true), open(4));
    assertEquals(LINES, Files.readString(file));
  }

  @Test
  void aLineThatLacksOnlyItsEndIsKept() throws Exception {
    Files.writeString(file, LINES.strip());
    assertEquals(new RunLog.Dropped(0, false), open(3));
    assertEquals(LINES, Files.readString(file));
  }

  @Test
  void aDamagedLineInTheMiddleIsNamedAndNothingIsChanged() throws Exception {
    for (String bad :
        List.of(
            "",
            "{",
            "[]",
            "{}",
            "{\"step\":1.5}",
            "{\"step\":\"1\"}",
            "{\"step\":1}{}",
            "{\"step\":1,\"step\":2}",
            "{\"step\":99999999999999999999}")) {
      String content = LINES + bad + "\n" + LINES;
      Files.writeString(file, content);
      String message = assertThrows(RunFolderException.class, () -> open(2), bad).getMessage();
      assertTrue(message.startsWith(file + ": line 5: found "), message);
      assertEquals(content, Files.readString(file));
    }
  }

  @Test
  void aCrashWhileResumingLeavesTheOldLogOrTheNewOne() throws Exception {
    for (String crashAt : List.of("before syncing", "before the rename", "after the rename")) {
      Files.writeString(file, LINES);
      assertThrows(
          IllegalStateException.class,
          () ->
              RunLog.open(
                  file,
                  1,
                  place -> {
                    if (place.equals(crashAt)) {
                      throw new IllegalStateException("crash");
                    }
                  }));
      boolean renamed = crashAt.equals("after the rename");
      assertEquals(renamed ? 2 : 4, Files.readAllLines(file).size());
      assertEquals(new RunLog.Dropped(renamed ? 0 : 2, false), open(1));
      assertEquals(2, Files.readAllLines(file).size());
      assertFalse(Files.exists(temp.resolve("log.jsonl.tmp")));
    }
  }

  @Test
  void aLogThatWasClosedSaysSo() {
    RunLog log = RunLog.open(file, 0);
    log.close();
    String message =
        assertThrows(RunFolderException.class, () -> log.append("train", 1, RunLog.fields()))
            .getMessage();
    assertTrue(message.contains(file.toString()), message);
  }
}
