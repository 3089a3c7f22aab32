package bireal.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** The program in a process of its own, for tests. */
final class Program {
  private Program() {}

  record Ended(int code, String output) {}

  /** {@code javaOptions} for the JVM, {@code environment} beside that of this process. */
  static Process start(List<String> javaOptions, Map<String, String> environment, String... args)
      throws IOException {
    List<String> command = new ArrayList<>();
    // A JVM whose parent ignores SIGINT (a background job, say) would inherit that: env restores
    // it.
    command.addAll(List.of("env", "--default-signal=INT"));
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("-XX:TieredStopAtLevel=1"); // they end before the second compiler pays
    command.addAll(javaOptions);
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), "bireal.cli.Main"));
    command.addAll(Arrays.asList(args));
    ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true);
    builder.environment().putAll(environment);
    return builder.start();
  }

  static Ended end(Process process) throws IOException, InterruptedException {
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertTrue(process.waitFor(120, TimeUnit.SECONDS), "still running");
    return new Ended(process.exitValue(), output);
  }

  static Ended run(List<String> javaOptions, Map<String, String> environment, String... args)
      throws IOException, InterruptedException {
    return end(start(javaOptions, environment, args));
  }

  static void assertEnds(int code, Ended ended, String... parts) {
    assertEquals(code, ended.code(), ended.output());
    for (String part : parts) {
      assertTrue(ended.output().contains(part), "no '" + part + "' in: " + ended.output());
    }
  }

  /** Contents of the newest checkpoint of the run folder {@code run}, by file name. */
  static Map<String, List<Byte>> newestCheckpoint(Path run) throws IOException {
    Map<String, List<Byte>> files = new TreeMap<>();
    try (Stream<Path> steps = Files.list(run.resolve("checkpoints"))) {
      Path last = steps.filter(Files::isDirectory).sorted().reduce((a, b) -> b).orElseThrow();
      try (Stream<Path> list = Files.list(last)) {
        for (Path file : list.toList()) {
          List<Byte> bytes = new ArrayList<>();
          for (byte b : Files.readAllBytes(file)) {
            bytes.add(b);
          }
          files.put(last.getFileName() + "/" + file.getFileName(), bytes);
        }
      }
    }
    return files;
  }
}
