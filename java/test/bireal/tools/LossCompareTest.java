package bireal.tools;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LossCompareTest {
  @TempDir Path folder;

  /** A log with one line a step. */
  private Path log(String name, double... losses) throws IOException {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < losses.length; i++) {
      text.append(
          "{\"event\":\"train\",\"step\":%d,\"loss\":%s,\"grad_norm\":%s}\n"
              .formatted(i + 1, losses[i], 10 * losses[i]));
    }
    return Files.writeString(folder.resolve(name), text);
  }

  private static double[] losses() {
    double[] losses = new double[10];
    Arrays.setAll(losses, i -> 2.3 / (i + 1));
    return losses;
  }

  @Test
  void equalLogsAreIdenticalToTheBit() throws IOException {
    var verdict = LossCompare.compare(log("a", losses()), log("b", losses()), 10);
    assertTrue(verdict.identical());
    assertEquals("identical to the bit: 10 lines, steps 1 to 10", verdict.text());
  }

  @Test
  void oneBitIsSeenAndPlaced() throws IOException {
    double[] changed = losses();
    changed[6] = Math.nextUp(changed[6]);
    changed[8] *= 1.01;
    var verdict = LossCompare.compare(log("a", losses()), log("b", changed), 10);
    assertFalse(verdict.identical());
    assertTrue(
        verdict.text().startsWith("the losses differ from step 7 on: 0.32857142857142"),
        verdict.text());
    assertTrue(verdict.text().contains("; at most by 0.01, at step 9"), verdict.text());
    assertTrue(verdict.text().contains("also different: grad_norm from step "), verdict.text());
    // Not within the steps that are compared.
    assertTrue(LossCompare.compare(log("a", losses()), log("b", changed), 6).identical());
  }

  @Test
  void otherFiguresAndFieldsOfOneSideAreNamed() throws IOException {
    Path a = log("a", losses());
    Path b = log("b", losses());
    Files.writeString(b, Files.readString(b).replace("\"step\":4,", "\"step\":4,\"new\":1,"));
    assertEquals(
        "identical to the bit: 10 lines, steps 1 to 10; only one side has new",
        LossCompare.compare(a, b, 10).text());
    Files.writeString(b, Files.readString(b).replace("\"grad_norm\":4.6", "\"grad_norm\":4.7"));
    var verdict = LossCompare.compare(a, b, 10);
    assertFalse(verdict.identical());
    assertTrue(
        verdict.text().startsWith("the losses are identical to the bit, other figures are not"),
        verdict.text());
    assertTrue(verdict.text().contains("grad_norm from step 5"), verdict.text());
  }

  @Test
  void aNotANumberIsADifference() throws IOException {
    double[] changed = losses();
    Path b = log("b", changed);
    Files.writeString(b, Files.readString(b).replaceFirst("\"loss\":2.3", "\"loss\":\"NaN\""));
    assertFalse(LossCompare.compare(log("a", losses()), b, 10).identical());
  }

  @Test
  void logsThatCannotBeComparedAreErrors() throws IOException {
    Path a = log("a", losses());
    Path shorter = log("short", Arrays.copyOf(losses(), 9));
    assertTrue(error(a, shorter).contains("short: ends at step 9, expected 10"));
    Path twice = log("twice", losses());
    Files.writeString(twice, Files.readString(twice).replace("\"step\":5", "\"step\":4"));
    assertTrue(error(a, twice).contains("twice:5: step 4 a second time"));
    Path torn = log("torn", losses());
    Files.writeString(torn, "{\"event\"\n" + Files.readString(torn));
    assertTrue(error(a, torn).contains("torn:1: not a line of a log"));
    // A last line without its end is what stopping a run leaves.
    Path cut = log("cut", losses());
    Files.writeString(cut, Files.readString(cut) + "{\"event\":\"tra");
    assertTrue(LossCompare.compare(a, cut, 10).identical());
    Path sparse = log("sparse", losses());
    Files.writeString(
        sparse,
        Files.readString(sparse).replaceFirst("\\{\"event\":\"train\",\"step\":3,[^\n]*\n", ""));
    assertTrue(error(a, sparse).contains("only in A"));
  }

  private static String error(Path a, Path b) {
    return assertThrows(IllegalArgumentException.class, () -> LossCompare.compare(a, b, 10))
        .getMessage();
  }

  /** What is wrong is said before anything is built. */
  @Test
  void theScriptRefusesWhatItCannotCompare() throws Exception {
    String[][] wrong = {
      {"no-such-commit", "HEAD", "loss_compare: error: no commit 'no-such-commit'"},
      {"HEAD", "HEAD", "no-such.yaml", "loss_compare: error: no config no-such.yaml"},
      {
        "HEAD", "HEAD", "--steps", "0", "loss_compare: error: --steps must be a whole number from 1"
      },
      {"HEAD", "usage: scripts/loss_compare.sh"},
    };
    for (String[] row : wrong) {
      var command = new java.util.ArrayList<>(java.util.List.of("scripts/loss_compare.sh"));
      command.addAll(Arrays.asList(row).subList(0, row.length - 1));
      Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      assertEquals(2, process.waitFor(), output);
      assertTrue(output.contains(row[row.length - 1]), output);
    }
  }
}
