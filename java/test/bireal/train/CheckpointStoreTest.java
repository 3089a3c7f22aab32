package bireal.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import bireal.tools.Mutation;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointStoreTest {
  @TempDir Path temp;
  private Path folder;

  /** The process ends here: nothing that only exceptions reach may run. */
  private static final class Crash extends Error {
    private static final long serialVersionUID = 1L;
  }

  private interface Action {
    void run(CheckpointStore store);
  }

  @BeforeEach
  void nameTheFolder() {
    folder = temp.resolve("run/checkpoints");
  }

  /** Tensors and progress tell step and edition, so that a mixture is noticed. */
  private static Path save(CheckpointStore store, long step, int edition) {
    float value = step * 10 + edition;
    return store.save(
        step,
        Map.of(
            "model.safetensors",
            List.of(
                NamedTensor.ofFloats("conv.weight", new long[] {2, 2}, value, 1, 2, 3),
                NamedTensor.ofLongs("bn.num_batches_tracked", new long[] {}, step)),
            "optimizer.safetensors",
            List.of(NamedTensor.ofFloats("conv.weight.m", new long[] {1}, value))),
        StrictJson.newObject().put("edition", edition).put("loss", 0.1f).put("rng", 1L << 60));
  }

  private static void assertContent(Checkpoint checkpoint, long step, int edition) {
    assertEquals(step, checkpoint.step());
    assertEquals(edition, checkpoint.progress().path("edition").intValue());
    assertEquals(0.1f, checkpoint.progress().path("loss").floatValue());
    assertEquals(1L << 60, checkpoint.progress().path("rng").longValue());
    assertEquals(
        List.of("model.safetensors", "optimizer.safetensors"),
        List.copyOf(checkpoint.tensorFiles()));
    float value = step * 10 + edition;
    try (Safetensors model = checkpoint.tensors("model.safetensors");
        Safetensors optimizer = checkpoint.tensors("optimizer.safetensors")) {
      assertArrayEquals(new float[] {value, 1, 2, 3}, model.read("conv.weight").floats());
      assertArrayEquals(new long[] {step}, model.read("bn.num_batches_tracked").longs());
      assertArrayEquals(new float[] {value}, optimizer.read("conv.weight.m").floats());
      assertEquals(Map.of("format", "pt"), model.metadata());
    }
  }

  private static List<Long> steps(CheckpointStore store) {
    return store.list().stream().map(CheckpointStore.Saved::step).toList();
  }

  private List<String> namesInFolder() throws IOException {
    return DurableFiles.children(folder).stream().map(p -> p.getFileName().toString()).toList();
  }

  @Test
  void whatIsSavedIsOpenedAgain() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    assertTrue(store.latest().isEmpty() && store.best().isEmpty() && store.list().isEmpty());
    Path path = save(store, 1000, 0);
    save(store, 123_456_789, 3);
    save(store, 0, 5);
    assertEquals(folder.resolve("step_00001000"), path);
    assertEquals(List.of("step_00000000", "step_00001000", "step_123456789"), namesInFolder());

    CheckpointStore reader = CheckpointStore.forReading(folder);
    assertEquals(List.of(0L, 1000L, 123_456_789L), steps(reader));
    assertContent(reader.latest().orElseThrow(), 123_456_789, 3);
    assertContent(CheckpointStore.open(path), 1000, 0);
    assertEquals(
        List.of("manifest.json", "model.safetensors", "optimizer.safetensors", "progress.json"),
        DurableFiles.children(path).stream().map(p -> p.getFileName().toString()).toList());
  }

  @Test
  void progressIsACopyThatTheCallerMayChange() {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Checkpoint checkpoint = CheckpointStore.open(save(store, 1, 0));
    checkpoint.progress().removeAll();
    assertEquals(3, checkpoint.progress().size());
  }

  @Test
  void equalContentGivesEqualBytes() throws Exception {
    Path one = save(CheckpointStore.forWriting(temp.resolve("a")), 7, 1);
    Thread.sleep(5); // a clock in the files would show
    Path two = save(CheckpointStore.forWriting(temp.resolve("b")), 7, 1);
    assertEquals(bytes(one), bytes(two));
    assertEquals(
        """
        {
          "format_version" : 1,
          "step" : 7,
          "files" : {
        """,
        Files.readString(one.resolve("manifest.json"))
            .lines()
            .limit(4)
            .reduce("", (a, b) -> a + b + "\n"));
  }

  private static Map<String, String> bytes(Path checkpoint) throws IOException {
    Map<String, String> bytes = new TreeMap<>();
    for (Path file : DurableFiles.children(checkpoint)) {
      bytes.put(file.getFileName().toString(), Arrays.toString(Files.readAllBytes(file)));
    }
    return bytes;
  }

  @Test
  void aStepThatIsSavedAgainIsReplaced() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    save(store, 5, 1);
    save(store, 5, 2);
    assertContent(store.latest().orElseThrow(), 5, 2);
    assertEquals(List.of("step_00000005"), namesInFolder());
  }

  @Test
  void pruningKeepsTheNewestAndTheBest() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    for (long step = 1; step <= 6; step++) {
      save(store, step, 0);
    }
    store.markBest(2, 0.5);
    store.prune(2);
    assertEquals(List.of(2L, 5L, 6L), steps(store));
    assertEquals(new CheckpointStore.BestMark(2, 0.5), store.bestMark().orElseThrow());
    assertContent(store.best().orElseThrow(), 2, 0);
    store.markBest(6, 0.75);
    store.prune(2);
    assertEquals(List.of(5L, 6L), steps(store));
    store.prune(2);
    store.prune(10);
    assertEquals(List.of("best.json", "step_00000005", "step_00000006"), namesInFolder());
    assertThrows(IllegalArgumentException.class, () -> store.prune(0));
  }

  @Test
  void aRunThatGoesOnFromAnOlderStepDiscardsTheLaterOnes() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    for (long step = 1; step <= 4; step++) {
      save(store, step, 0);
    }
    store.markBest(2, 0.5);
    store.discardAfter(3);
    assertEquals(List.of(1L, 2L, 3L), steps(store));
    assertEquals(2, store.bestMark().orElseThrow().step());
    store.discardAfter(1);
    assertEquals(List.of("step_00000001"), namesInFolder());
  }

  @Test
  void aBestThatIsGoneOrDamagedIsNamed() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path path = save(store, 2, 0);
    assertThrows(IllegalArgumentException.class, () -> store.markBest(3, 0.5));
    assertThrows(IllegalArgumentException.class, () -> store.markBest(2, Double.NaN));
    store.markBest(2, 0.5);
    DurableFiles.deleteTree(path);
    String gone = assertThrows(CheckpointException.class, store::best).getMessage();
    assertTrue(gone.contains("best.json: step: found 2"), gone);
    for (String text :
        List.of(
            "",
            "{",
            "{}",
            "[]",
            "{\"step\":1}",
            "{\"step\":1,\"metric\":\"a\"}",
            "{\"step\":-1,\"metric\":1}",
            "{\"step\":1.5,\"metric\":1}",
            "{\"step\":1,\"metric\":1e999}",
            "{\"step\":1,\"metric\":1}x",
            "{\"step\":1,\"metric\":1,\"metric\":1}",
            " ".repeat(2000))) {
      Files.writeString(folder.resolve("best.json"), text);
      String message = assertThrows(CheckpointException.class, store::bestMark, text).getMessage();
      assertTrue(message.contains("best.json: ") && message.contains("delete it"), message);
      assertThrows(
          CheckpointException.class, () -> store.prune(1), "nothing is deleted on a guess");
    }
  }

  @Test
  void aReaderChangesNothing() throws Exception {
    save(CheckpointStore.forWriting(folder), 1, 0);
    Files.createDirectory(folder.resolve("step_00000002.tmp"));
    CheckpointStore reader = CheckpointStore.forReading(folder);
    assertContent(reader.latest().orElseThrow(), 1, 0);
    assertTrue(namesInFolder().contains("step_00000002.tmp"), "another process may be writing it");
    ObjectNode none = StrictJson.newObject();
    assertThrows(IllegalStateException.class, () -> reader.save(3, Map.of(), none));
    assertThrows(IllegalStateException.class, () -> reader.prune(1));
    assertThrows(IllegalStateException.class, () -> reader.markBest(1, 1));
    assertThrows(IllegalStateException.class, () -> reader.discardAfter(0));
    assertTrue(CheckpointStore.forReading(temp.resolve("none")).latest().isEmpty());
  }

  @Test
  void otherFoldersAreLeftAlone() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    save(store, 1, 0);
    List<String> others =
        List.of(
            "step_1", "step_000000001", "mine", "step_00000001.bak", "x.tmp", "step_a.deleting");
    for (String name : others) {
      Files.createDirectory(folder.resolve(name));
    }
    Files.createFile(folder.resolve("step_00000009")); // a file, no folder
    assertEquals(List.of(1L), steps(CheckpointStore.forWriting(folder)));
    assertTrue(namesInFolder().containsAll(others));
  }

  @Test
  void everyFlippedBitIsDetected() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path path = save(store, 1234, 0);
    for (Path file : DurableFiles.children(path)) {
      byte[] content = Files.readAllBytes(file);
      for (int bit = 0; bit < content.length * 8; bit++) {
        byte[] flipped = content.clone();
        flipped[bit / 8] ^= (byte) (1 << (bit % 8));
        Mutation.rewrite(file, flipped);
        String message =
            assertThrows(
                    CheckpointException.class,
                    () -> CheckpointStore.open(path),
                    file + " bit " + bit)
                .getMessage();
        assertTrue(message.startsWith(path.toString()), message);
      }
      Mutation.rewrite(file, content);
    }
    assertContent(CheckpointStore.open(path), 1234, 0);
  }

  @Test
  void everyTruncationIsDetected() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path path = save(store, 1234, 0);
    for (Path file : DurableFiles.children(path)) {
      byte[] content = Files.readAllBytes(file);
      boolean manifest = file.endsWith("manifest.json");
      // The manifest's last byte is a line feed, which says nothing.
      for (int length = 0; length < content.length - (manifest ? 1 : 0); length++) {
        Mutation.rewrite(file, Arrays.copyOf(content, length));
        assertThrows(
            CheckpointException.class,
            () -> CheckpointStore.open(path),
            file + " cut to " + length);
      }
      Mutation.rewrite(file, content);
    }
  }

  @Test
  void aMissingFileIsNamed() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path path = save(store, 1, 0);
    for (Path file : DurableFiles.children(path)) {
      byte[] content = Files.readAllBytes(file);
      Files.delete(file);
      String message =
          assertThrows(CheckpointException.class, () -> CheckpointStore.open(path)).getMessage();
      assertTrue(message.startsWith(file + ": file: found no file, expected"), message);
      Files.createDirectory(file);
      assertThrows(CheckpointException.class, () -> CheckpointStore.open(path));
      Files.delete(file);
      Files.write(file, content);
    }
    Checkpoint checkpoint = CheckpointStore.open(path);
    String message =
        assertThrows(CheckpointException.class, () -> checkpoint.tensors("ema.safetensors"))
            .getMessage();
    assertTrue(message.contains("'ema.safetensors'") && message.contains("model.safe"), message);
    assertThrows(CheckpointException.class, () -> CheckpointStore.open(temp.resolve("none")));
  }

  @Test
  void anotherFormatVersionIsNamedBeforeAllElse() throws Exception {
    Path path = save(CheckpointStore.forWriting(folder), 1, 0);
    Files.writeString(
        path.resolve("manifest.json"), "{\"format_version\": 2, \"tensors\": [\"elsewhere\"]}");
    String message =
        assertThrows(CheckpointException.class, () -> CheckpointStore.open(path)).getMessage();
    assertTrue(message.contains("format_version: found '2', expected 1"), message);
    assertTrue(message.contains("use the version of bireal that wrote"), message);
  }

  @Test
  void aManifestCannotPointOutOfItsFolder() throws Exception {
    Path path = save(CheckpointStore.forWriting(folder), 1, 0);
    Path manifest = path.resolve("manifest.json");
    String good = Files.readString(manifest);
    for (String name : List.of("../x", "/etc/passwd", "a/b", ".hidden", "", "manifest.json")) {
      Files.writeString(manifest, good.replace("model.safetensors", name));
      String message =
          assertThrows(CheckpointException.class, () -> CheckpointStore.open(path)).getMessage();
      assertTrue(message.contains("a plain file name"), message);
    }
  }

  @Test
  void aDamagedNewestCheckpointNamesThePreviousGoodOne() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path good = save(store, 1, 0);
    Path alsoDamaged = save(store, 2, 0);
    Path newest = save(store, 3, 0);
    Files.delete(alsoDamaged.resolve("progress.json"));
    Files.delete(newest.resolve("model.safetensors"));
    String message = assertThrows(CheckpointException.class, store::latest).getMessage();
    assertTrue(message.startsWith(newest.toString()), message);
    assertTrue(message.endsWith("; the previous good checkpoint is " + good), message);
    String oldest =
        assertThrows(
                CheckpointException.class,
                () -> {
                  Files.delete(good.resolve("manifest.json"));
                  CheckpointStore.open(good);
                })
            .getMessage();
    assertTrue(oldest.endsWith("; there is no good checkpoint before it"), oldest);
  }

  @Test
  void aTensorFileIsVerifiedWithItsCheckpoint() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path good = save(store, 1, 0);
    Path damaged = save(store, 2, 0);
    String name = CheckpointStore.open(good).tensorFiles().iterator().next();
    CheckpointStore.openTensors(good.resolve(name)).close();
    Path file = damaged.resolve(name);
    byte[] content = Files.readAllBytes(file);
    content[content.length - 1] ^= 4; // still a sound safetensors file
    Mutation.rewrite(file, content);
    Safetensors.open(file).close();
    String message =
        assertThrows(CheckpointException.class, () -> CheckpointStore.openTensors(file))
            .getMessage();
    assertTrue(message.contains(file.toString()), message);
    assertTrue(message.endsWith("the previous good checkpoint is " + good), message);
    // Alone, there is nothing to compare it with.
    Path alone = Files.copy(file, temp.resolve("alone.safetensors"));
    CheckpointStore.openTensors(alone).close();
  }

  @Test
  void aCheckpointMayBeCopiedUnderAnotherName() throws Exception {
    Path path = save(CheckpointStore.forWriting(folder), 1, 0);
    Path copy = temp.resolve("best of all");
    Files.move(path, copy);
    assertContent(CheckpointStore.open(copy), 1, 0);
    Path wrong = temp.resolve("step_00000002");
    Files.move(copy, wrong);
    assertThrows(CheckpointException.class, () -> CheckpointStore.open(wrong));
  }

  @Test
  void badArgumentsLeaveNothingBehind() throws Exception {
    CheckpointStore store = CheckpointStore.forWriting(folder);
    save(store, 1, 1);
    ObjectNode none = StrictJson.newObject();
    NamedTensor tensor = NamedTensor.ofFloats("a", new long[] {1}, 1f);
    assertThrows(IllegalArgumentException.class, () -> store.save(-1, Map.of(), none));
    for (String name : List.of("../a", "a/b", "", ".a", "progress.json", "manifest.json")) {
      assertThrows(
          IllegalArgumentException.class, () -> store.save(2, Map.of(name, List.of()), none), name);
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> store.save(1, Map.of("a", List.of(tensor, tensor)), none));
    assertEquals(List.of("step_00000001"), namesInFolder());
    assertContent(store.latest().orElseThrow(), 1, 1);
  }

  /** Where an action passes, counted on a scratch copy prepared in the same way. */
  private int faultPoints(Action prepare, Action action) {
    Path scratch = temp.resolve("scratch");
    prepare.run(CheckpointStore.forWriting(scratch));
    List<String> passed = new ArrayList<>();
    action.run(CheckpointStore.forWriting(scratch, passed::add));
    try {
      DurableFiles.deleteTree(scratch);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return passed.size();
  }

  private static Consumer<String> failAt(int point, Runnable failure) {
    int[] passed = {0};
    return place -> {
      if (passed[0]++ == point) {
        failure.run();
      }
    };
  }

  private static void crash() {
    throw new Crash();
  }

  private static void diskFull() {
    throw new UncheckedIOException(new IOException("No space left on device"));
  }

  /** Crashes at every point of the action; each time the newest checkpoint must be as expected. */
  private void crashEverywhere(int least, Action prepare, Action action, Consumer<Checkpoint> check)
      throws IOException {
    int points = faultPoints(prepare, action);
    assertTrue(points >= least, points + " points passed");
    for (int point = 0; point < points; point++) {
      DurableFiles.deleteTree(folder);
      prepare.run(CheckpointStore.forWriting(folder));
      CheckpointStore store =
          CheckpointStore.forWriting(folder, failAt(point, CheckpointStoreTest::crash));
      assertThrows(Crash.class, () -> action.run(store));

      check.accept(CheckpointStore.forReading(folder).latest().orElseThrow());
      for (CheckpointStore.Saved saved : CheckpointStore.forReading(folder).list()) {
        CheckpointStore.open(saved.folder());
      }
      // The next process may crash as well, while it clears up.
      for (int again = 0; again < 4; again++) {
        try {
          CheckpointStore.forWriting(folder, failAt(again, CheckpointStoreTest::crash));
        } catch (Crash e) {
          check.accept(CheckpointStore.forReading(folder).latest().orElseThrow());
        }
      }
      CheckpointStore next = CheckpointStore.forWriting(folder);
      check.accept(next.latest().orElseThrow());
      for (String name : namesInFolder()) {
        assertTrue(name.matches("step_\\d{8}|best\\.json"), name + " is left over");
      }
      action.run(next);
    }
  }

  @Test
  void aCrashWhileSavingLeavesTheCheckpointBeforeOrTheNewOne() throws Exception {
    crashEverywhere(
        8,
        store -> save(store, 1, 0),
        store -> save(store, 2, 0),
        latest -> assertContent(latest, latest.step(), 0));
  }

  @Test
  void aCrashWhileReplacingTheOnlyCheckpointLeavesTheOldOrTheNewOne() throws Exception {
    crashEverywhere(
        11,
        store -> save(store, 1, 0),
        store -> save(store, 1, 1),
        latest -> assertContent(latest, 1, latest.progress().path("edition").intValue()));
  }

  @Test
  void aCrashWhilePruningLeavesOnlyWholeCheckpoints() throws Exception {
    crashEverywhere(
        6,
        store -> {
          for (long step = 1; step <= 5; step++) {
            save(store, step, 0);
          }
          store.markBest(2, 0.5);
        },
        store -> {
          store.prune(2);
          // Again after recovery there may be nothing to do: the points were passed before.
        },
        latest -> assertContent(latest, 5, 0));
    assertEquals(List.of(2L, 4L, 5L), steps(CheckpointStore.forReading(folder)));
  }

  @Test
  void aCrashWhileMarkingOrDiscardingLeavesAMarkThatHolds() throws Exception {
    crashEverywhere(
        2,
        store -> {
          save(store, 1, 0);
          store.markBest(1, 0.25);
          save(store, 2, 0);
        },
        store -> store.markBest(2, 0.5),
        latest -> assertTrue(CheckpointStore.forReading(folder).best().isPresent()));
    crashEverywhere(
        4,
        store -> {
          save(store, 1, 0);
          save(store, 2, 0);
          store.markBest(2, 0.5);
        },
        store -> store.discardAfter(1),
        latest -> CheckpointStore.forReading(folder).best());
  }

  @Test
  void aFailingDiskLeavesTheCheckpointsBeforeAndNoRemains() throws Exception {
    Action prepare = store -> save(store, 1, 0);
    for (long step = 1; step <= 2; step++) {
      long saved = step;
      int points = faultPoints(prepare, store -> save(store, saved, 1));
      for (int point = 0; point < points; point++) {
        DurableFiles.deleteTree(folder);
        prepare.run(CheckpointStore.forWriting(folder));
        CheckpointStore store =
            CheckpointStore.forWriting(folder, failAt(point, CheckpointStoreTest::diskFull));
        String message =
            assertThrows(CheckpointException.class, () -> save(store, saved, 1)).getMessage();
        assertTrue(message.startsWith("cannot save the checkpoint of step " + saved), message);
        assertTrue(message.contains(folder.toString()), message);
        assertTrue(message.contains("No space left on device"), message);
        assertTrue(message.matches(".*\\(\\d+ bytes are free there\\).*"), message);
        Checkpoint latest = store.latest().orElseThrow();
        assertContent(latest, latest.step(), latest.progress().path("edition").intValue());
        assertTrue(steps(store).contains(1L));
        for (String name : namesInFolder()) {
          assertTrue(name.matches("step_\\d{8}"), name + " is left over");
        }
        save(store, saved, 2); // room was made: the same store goes on
        assertContent(store.latest().orElseThrow(), saved, 2);
      }
    }
  }

  @Test
  void aFolderThatCannotBeWrittenIsNamed() throws Exception {
    // Permissions would not stop root; a file in the place of a folder stops everybody.
    Path file = Files.createFile(temp.resolve("file"));
    for (Path bad : List.of(file, file.resolve("checkpoints"), Path.of("/proc/none"))) {
      CheckpointException e =
          assertThrows(CheckpointException.class, () -> CheckpointStore.forWriting(bad));
      assertTrue(e.getMessage().contains(bad.toString()), e.getMessage());
      assertInstanceOf(IOException.class, e.getCause());
    }
    CheckpointStore store = CheckpointStore.forWriting(folder);
    Path old = save(store, 1, 0);
    Path moved = Files.move(folder, temp.resolve("moved"));
    Files.createFile(folder);
    CheckpointException e = assertThrows(CheckpointException.class, () -> save(store, 2, 0));
    assertInstanceOf(FileSystemException.class, e.getCause());
    assertContent(CheckpointStore.open(moved.resolve(old.getFileName())), 1, 0);
  }

  @Test
  void aProcessThatIsKilledLeavesAGoodNewestCheckpoint() throws Exception {
    Random random = new Random(3);
    long before = 0;
    for (int kill = 0; kill < 3; kill++) {
      Process process =
          new ProcessBuilder(
                  Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                  "-Xshare:auto",
                  "-cp",
                  System.getProperty("java.class.path"),
                  Saver.class.getName(),
                  folder.toString())
              .redirectErrorStream(true)
              .redirectOutput(new File(temp.toFile(), "saver.log"))
              .start();
      waitForStep(process, before + 3);
      Thread.sleep(random.nextInt(40));
      process.destroyForcibly();
      assertTrue(process.waitFor(30, TimeUnit.SECONDS));
      Checkpoint latest = CheckpointStore.forReading(folder).latest().orElseThrow();
      assertContent(latest, latest.step(), latest.progress().path("edition").intValue());
      assertTrue(latest.step() >= before + 3);
      before = latest.step();
    }
    CheckpointStore.forWriting(folder);
    for (String name : namesInFolder()) {
      assertTrue(name.matches("step_\\d{8}"), name + " is left over");
    }
  }

  private void waitForStep(Process process, long step) throws Exception {
    for (int i = 0; i < 3000; i++) {
      List<Long> steps = steps(CheckpointStore.forReading(folder));
      if (!steps.isEmpty() && steps.get(steps.size() - 1) >= step) {
        return;
      }
      assertTrue(process.isAlive(), () -> read(temp.resolve("saver.log")));
      Thread.sleep(10);
    }
    fail("no checkpoint of step " + step + " in 30 s");
  }

  private static String read(Path file) {
    try {
      return Files.readString(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Saves each step twice and prunes, until it is killed. */
  static final class Saver {
    private Saver() {}

    public static void main(String[] args) {
      CheckpointStore store = CheckpointStore.forWriting(Path.of(args[0]));
      long step = store.latest().map(Checkpoint::step).orElse(0L);
      while (true) {
        step++;
        save(store, step, 1);
        save(store, step, 2);
        store.prune(2);
      }
    }
  }
}
