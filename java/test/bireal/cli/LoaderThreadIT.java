package bireal.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.sun.jdi.Bootstrap;
import com.sun.jdi.ThreadReference;
import com.sun.jdi.VirtualMachine;
import com.sun.jdi.connect.AttachingConnector;
import com.sun.jdi.connect.Connector;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A loader thread of a real process stalls or dies: a debugger suspends or interrupts it, which is
 * for the rest of the program what a read that never returns or that fails is. The run ends with
 * the cause, in time. What the loader alone does: {@code BatchLoaderTest}.
 */
class LoaderThreadIT {
  private static final String CONFIG =
      """
      name: loader
      threads: 1
      runs_folder: RUNS
      model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
      data: {dataset: synthetic, image_size: 16, mean: [0.5], std: [0.25], synthetic_train_images: 64, synthetic_test_images: 32, synthetic_classes: 4, stall_limit_seconds: 1}
      optimizer: {lr: 2.0e-3, reference_batch: 8}
      train: {epochs: 100000, batch: 8, micro_batch: 8, evaluate_every_epochs: 100000}
      """;
  private static final String LISTENING = "Listening for transport dt_socket at address: ";

  @TempDir Path folder;

  private interface Disturbance {
    void of(ThreadReference loader) throws Exception;
  }

  /** Trains, lets {@code disturbance} happen to the loader thread; what the process then prints. */
  private String runWith(Disturbance disturbance) throws Exception {
    Path config = folder.resolve("loader.yaml");
    Files.writeString(config, CONFIG.replace("RUNS", folder.resolve("runs").toString()));
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:TieredStopAtLevel=1",
                "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:0",
                "-cp",
                System.getProperty("java.class.path"),
                "bireal.cli.Main",
                "train",
                config.toString())
            .redirectErrorStream(true)
            .start();
    try (BufferedReader lines = process.inputReader(StandardCharsets.UTF_8)) {
      String first = lines.readLine();
      assertTrue(first.startsWith(LISTENING), first);
      StringBuilder output = new StringBuilder();
      String line = lines.readLine();
      // The first checkpoint: it trains, and has something to lose.
      while (line != null && !line.startsWith("checkpoint ")) {
        output.append(line).append('\n');
        line = lines.readLine();
      }
      assertTrue(line != null, "the run ended by itself: " + output);
      VirtualMachine machine = attach(first.substring(LISTENING.length()).strip());
      disturbance.of(
          machine.allThreads().stream()
              .filter(thread -> thread.name().equals("bireal-loader-0"))
              .findFirst()
              .orElseThrow());
      for (line = lines.readLine(); line != null; line = lines.readLine()) {
        output.append(line).append('\n');
      }
      assertTrue(process.waitFor(60, TimeUnit.SECONDS), "it hangs: " + output);
      assertEquals(2, process.exitValue(), output.toString());
      return output.toString();
    } finally {
      process.destroyForcibly();
    }
  }

  private static VirtualMachine attach(String port) throws Exception {
    AttachingConnector connector =
        Bootstrap.virtualMachineManager().attachingConnectors().stream()
            .filter(each -> each.transport().name().equals("dt_socket"))
            .findFirst()
            .orElseThrow(() -> new IOException("this JDK has no debugger connection"));
    Map<String, Connector.Argument> arguments = connector.defaultArguments();
    arguments.get("hostname").setValue("127.0.0.1");
    arguments.get("port").setValue(port);
    return connector.attach(arguments);
  }

  @Test
  void aStalledLoaderThreadEndsTheRunWithinTheLimit() throws Exception {
    long[] started = new long[1];
    String output =
        runWith(
            loader -> {
              loader.suspend();
              started[0] = System.nanoTime();
            });
    // stall_limit_seconds, then as long for the thread to end, and slack for a busy machine.
    assertTrue(System.nanoTime() - started[0] < 30_000_000_000L, output);
    assertTrue(output.contains("bireal: error: no image of synthetic train for 1.0 s: "), output);
    assertTrue(
        List.of("bireal-loader-0 does not return from image ", "no loader thread took them up")
            .stream()
            .anyMatch(output::contains),
        output);
    assertTrue(output.contains("data.stall_limit_seconds"), output);
  }

  @Test
  void aLoaderThreadThatDiesEndsTheRunWithItsCause() throws Exception {
    String output = runWith(ThreadReference::interrupt);
    assertTrue(
        output.contains("bireal: error: loading images of synthetic train failed: "), output);
    assertTrue(output.contains("InterruptedException"), output);
  }
}
