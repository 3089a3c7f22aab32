package bireal.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** scripts/bireal in a copy of the repository's shape, with a stand-in for java. */
class LauncherTest {
  @TempDir Path folder;

  private Path launcher;
  private Path java;

  @BeforeEach
  void copyTheLauncher() throws IOException {
    launcher = folder.resolve("a repo/scripts/bireal");
    Files.createDirectories(launcher.getParent());
    Files.copy(Path.of("scripts/bireal"), launcher);
    makeExecutable(launcher);
    java = folder.resolve("jdk/bin/java");
    Files.createDirectories(java.getParent());
  }

  @Test
  void runsTheJarWithTheCallersArgumentsFromAnyFolder() throws Exception {
    build("0.1.0");
    standInForJava("17.0.15");
    String jar = folder.resolve("a repo/target/bireal-0.1.0.jar").toString();
    Result result = run(launcher, "train", "a b.yaml", "--set", "x=[1, 2]");
    assertEquals(List.of("-jar", jar, "train", "a b.yaml", "--set", "x=[1, 2]"), result.lines);
    assertEquals(7, result.code, "java's exit code is the launcher's");
  }

  @Test
  void isFoundThroughALink() throws Exception {
    build("0.1.0");
    standInForJava("17.0.15");
    Path link = Files.createSymbolicLink(folder.resolve("link"), launcher);
    assertEquals(7, run(Files.createSymbolicLink(folder.resolve("link2"), link)).code);
  }

  @Test
  void newerJavaIsAllowedNativeAccess() throws Exception {
    build("0.1.0");
    standInForJava("25");
    assertEquals("--enable-native-access=ALL-UNNAMED", run(launcher).lines.get(0));
  }

  @Test
  void theVersionStandsInTheJdksFileWhereThereIsOne() throws Exception {
    build("0.1.0");
    standInForJava("17.0.15");
    Path release = folder.resolve("jdk/release");
    Files.writeString(release, "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"25.0.1\"\n");
    assertEquals("--enable-native-access=ALL-UNNAMED", run(launcher).lines.get(0));
    Files.writeString(release, "IMPLEMENTOR=\"x\"\n");
    assertEquals("-jar", run(launcher).lines.get(0));
  }

  @Test
  void furtherJavaOptionsComeFromTheEnvironment() throws Exception {
    build("0.1.0");
    standInForJava("21.0.2");
    Result result = run(launcher, Map.of("BIREAL_JAVA_OPTS", "-Xmx4g -Dx=y"));
    assertEquals(List.of("-Xmx4g", "-Dx=y", "-jar"), result.lines.subList(0, 3));
  }

  @Test
  void tellsHowToBuild() throws Exception {
    standInForJava("17.0.15");
    Result result = run(launcher);
    assertEquals(1, result.code);
    assertTrue(result.lines.get(0).startsWith("bireal: error: not built: run"), result.toString());
    assertTrue(result.lines.get(0).contains("mvn package"), result.toString());
  }

  @Test
  void refusesAnOldJavaAndAWrongJavaHome() throws Exception {
    build("0.1.0");
    standInForJava("1.8.0_402");
    Result result = run(launcher);
    assertEquals(1, result.code);
    assertEquals(
        List.of(
            "bireal: error: "
                + java
                + " is version 1; install a JDK from 17 to 25, or set JAVA_HOME"),
        result.lines);
    Files.delete(java);
    result = run(launcher);
    assertEquals(1, result.code);
    assertTrue(result.lines.get(0).contains("has no bin/java"), result.toString());
  }

  private void build(String version) throws IOException {
    Path lib = Files.createDirectories(folder.resolve("a repo/target/lib"));
    Files.createFile(lib.resolveSibling("bireal-" + version + ".jar"));
  }

  /** Prints its arguments, one a line, and ends with 7. */
  private void standInForJava(String version) throws IOException {
    Files.writeString(
        java,
        """
        #!/bin/bash
        if [[ $1 == -version ]]; then echo 'openjdk version "%s" 2025-04-15' >&2; exit 0; fi
        printf '%%s\\n' "$@"
        exit 7
        """
            .formatted(version));
    makeExecutable(java);
  }

  private static void makeExecutable(Path file) throws IOException {
    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwxr-xr-x"));
  }

  private record Result(int code, List<String> lines) {}

  private Result run(Path script, String... args) throws Exception {
    return run(script, Map.of(), args);
  }

  private Result run(Path script, Map<String, String> environment, String... args)
      throws Exception {
    List<String> command = new ArrayList<>(List.of(script.toString()));
    command.addAll(List.of(args));
    ProcessBuilder builder =
        new ProcessBuilder(command).directory(folder.toFile()).redirectErrorStream(true);
    builder.environment().put("JAVA_HOME", folder.resolve("jdk").toString());
    builder.environment().remove("BIREAL_JAVA_OPTS");
    builder.environment().putAll(environment);
    Process process = builder.start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    return new Result(process.waitFor(), output.lines().toList());
  }
}
