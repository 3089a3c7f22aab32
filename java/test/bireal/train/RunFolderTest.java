package bireal.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

class RunFolderTest {
  private static final String CONFIG = "network:\n  depth: 18\n";

  @TempDir Path temp;
  private Path folder;

  @BeforeEach
  void nameTheFolder() {
    folder = temp.resolve("runs/one");
  }

  private static String refused(Executable open) {
    return assertThrows(RunFolderException.class, open).getMessage();
  }

  @Test
  void aRunIsCreatedAndResumed() throws Exception {
    assertFalse(RunFolder.holdsRun(folder));
    try (RunFolder run = RunFolder.create(folder, CONFIG)) {
      run.appendEnvironment(0, Map.of("commit", "abc\ndef"));
      try (RunLog log = run.openLog(0)) {
        log.append("train", 1, RunLog.fields());
        log.append("train", 2, RunLog.fields());
      }
      run.openCheckpoints().save(1, Map.of(), StrictJson.newObject());
    }
    assertTrue(RunFolder.holdsRun(folder));
    try (RunFolder run = RunFolder.resume(folder)) {
      assertEquals(CONFIG, run.config());
      assertEquals(1, run.openCheckpoints().latest().orElseThrow().step());
      try (RunLog log = run.openLog(1)) {
        assertEquals(new RunLog.Dropped(1, false), log.dropped());
      }
      run.appendEnvironment(1, Map.of());
    }
    assertEquals(
        List.of(".lock", "checkpoints", "config.yaml", "env.txt", "log.jsonl"),
        DurableFiles.children(folder).stream().map(p -> p.getFileName().toString()).toList());
    String env = Files.readString(folder.resolve("env.txt"));
    assertTrue(env.startsWith("from step: 0\njava: " + System.getProperty("java.version")), env);
    assertTrue(env.contains("\ncpu: ") && env.contains("\nthreads: "), env);
    assertTrue(env.contains("\ncommit: abc def\n\nfrom step: 1\n"), env);
  }

  @Test
  void aFolderThatHoldsARunIsNotOverwritten() throws Exception {
    RunFolder.create(folder, CONFIG).close();
    String message = refused(() -> RunFolder.create(folder, "other: 1\n"));
    assertTrue(message.contains(folder + " already holds a run (it has config.yaml)"), message);
    assertEquals(CONFIG, Files.readString(folder.resolve("config.yaml")));
    RunFolder.resume(folder).close(); // the refusal left no lock
    Files.delete(folder.resolve("config.yaml"));
    Files.createFile(folder.resolve("log.jsonl"));
    assertTrue(refused(() -> RunFolder.create(folder, CONFIG)).contains("log.jsonl"));
  }

  @Test
  void aFolderWithoutARunIsNotResumed() throws Exception {
    assertTrue(refused(() -> RunFolder.resume(folder)).contains("holds no run"));
    Files.createDirectories(folder);
    assertTrue(refused(() -> RunFolder.resume(folder)).contains("it has no config.yaml"));
    assertTrue(DurableFiles.children(folder).isEmpty());
  }

  @Test
  void aPathThatIsNoFolderIsNamed() throws Exception {
    Path file = Files.createFile(temp.resolve("file"));
    assertTrue(refused(() -> RunFolder.create(file, CONFIG)).contains(file.toString()));
    Path below = file.resolve("run");
    assertTrue(refused(() -> RunFolder.create(below, CONFIG)).contains(below.toString()));
    assertTrue(refused(() -> RunFolder.resume(below)).contains(below.toString()));
  }

  @Test
  void aRunThatIsInUseHereIsRefusedUntilItIsClosed() throws Exception {
    RunFolder run = RunFolder.create(folder, CONFIG);
    Path link = Files.createSymbolicLink(temp.resolve("link"), folder);
    for (Path path : List.of(folder, temp.resolve("runs/../runs/one"), link)) {
      String message = refused(() -> RunFolder.resume(path));
      assertTrue(message.contains(path + " is in use by this process, pid "), message);
      assertTrue(message.contains(Long.toString(ProcessHandle.current().pid())), message);
    }
    try (Holder other = new Holder(folder)) {
      assertTrue(other.line().contains("in use by another process, 'pid "), other.line());
      assertTrue(other.line().contains(Long.toString(ProcessHandle.current().pid())));
    }
    run.close();
    run.close();
    RunFolder.resume(folder).close();
  }

  @Test
  void aRunThatIsInUseElsewhereIsRefusedUntilThatProcessEnds() throws Exception {
    RunFolder.create(folder, CONFIG).close();
    try (Holder other = new Holder(folder)) {
      assertEquals("locked", other.line());
      String message = refused(() -> RunFolder.resume(folder));
      assertTrue(message.contains("'pid " + other.process.pid() + "'"), message);
    }
    RunFolder.resume(folder).close();
  }

  /** Another process that holds the lock, or says why it cannot, until it is closed. */
  private static final class Holder implements AutoCloseable {
    private final Process process;
    private final String line;

    Holder(Path folder) throws Exception {
      process =
          new ProcessBuilder(
                  Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                  "-cp",
                  System.getProperty("java.class.path"),
                  Holder.class.getName(),
                  folder.toString())
              .redirectError(ProcessBuilder.Redirect.INHERIT)
              .start();
      line =
          new BufferedReader(
                  new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))
              .readLine();
    }

    String line() {
      return line;
    }

    @Override
    public void close() {
      process.destroyForcibly();
      process.onExit().join();
    }

    @SuppressWarnings({"UnusedMethod", "EffectivelyPrivate"}) // started as a program of its own
    public static void main(String[] args) throws Exception {
      try (RunFolder run = RunFolder.resume(Path.of(args[0]))) {
        System.out.println("locked");
        Thread.sleep(60_000);
        assertTrue(RunFolder.holdsRun(run.folder()));
      } catch (RunFolderException e) {
        System.out.println(e.getMessage());
      }
    }
  }
}
