package bireal.tools;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Compares two runs' {@code log.jsonl}: identical to the bit, or by how much and from which step.
 */
public final class LossCompare {
  /** Exit code 0 where all that both logs hold is the same number, else 1; and what to print. */
  record Verdict(boolean identical, String text) {}

  private record Key(long step, String event) {}

  private static final String USAGE =
      """
      usage: scripts/tool.sh LossCompare A.jsonl B.jsonl STEPS
      Compares the lines of the first STEPS steps as exact numbers. Exit code 0: identical to the bit, 1: not, 2: no answer.""";

  private static final ObjectMapper JSON = new ObjectMapper();

  private LossCompare() {}

  public static void main(String[] args) throws IOException {
    if (args.length != 3) {
      System.err.println(USAGE);
      System.exit(2);
    }
    Verdict verdict = null;
    try {
      verdict = compare(Path.of(args[0]), Path.of(args[1]), Long.parseLong(args[2]));
    } catch (IllegalArgumentException | IOException e) {
      System.err.println("loss_compare: error: " + e.getMessage());
      System.exit(2);
    }
    System.out.println("loss_compare: " + verdict.text());
    System.exit(verdict.identical() ? 0 : 1);
  }

  static Verdict compare(Path fileA, Path fileB, long steps) throws IOException {
    Map<Key, JsonNode> a = read(fileA, steps);
    Map<Key, JsonNode> b = read(fileB, steps);
    if (!a.keySet().equals(b.keySet())) {
      Set<String> only = new TreeSet<>();
      a.keySet().stream().filter(key -> !b.containsKey(key)).forEach(key -> only.add("A " + key));
      b.keySet().stream().filter(key -> !a.containsKey(key)).forEach(key -> only.add("B " + key));
      throw new IllegalArgumentException(
          "the logs have lines of different steps, so the runs are not the same: only in "
              + only.iterator().next()
              + (only.size() > 1 ? " and " + (only.size() - 1) + " more" : ""));
    }
    Set<String> missing = new TreeSet<>();
    List<String> differences = new ArrayList<>();
    Map<String, Long> firstStep = new LinkedHashMap<>();
    double worst = 0;
    long worstStep = 0;
    String firstLoss = "";
    for (Map.Entry<Key, JsonNode> line : a.entrySet()) {
      JsonNode other = b.get(line.getKey());
      Set<String> fields = new TreeSet<>();
      line.getValue().fieldNames().forEachRemaining(fields::add);
      other.fieldNames().forEachRemaining(fields::add);
      for (String field : fields) {
        JsonNode left = line.getValue().get(field);
        JsonNode right = other.get(field);
        if (left == null || right == null) {
          missing.add(field); // one of the commits did not write it yet
          continue;
        }
        // Jackson writes the shortest text that reads as the same double: equal text, equal bits.
        if (left.equals(right)) {
          continue;
        }
        long step = line.getKey().step();
        firstStep.putIfAbsent(field, step);
        if (field.equals("loss")) {
          double difference = Math.abs(left.asDouble() - right.asDouble());
          double relative = difference / Math.abs(left.asDouble());
          if (firstLoss.isEmpty()) {
            firstLoss =
                String.format(
                    Locale.ROOT,
                    "the losses differ from step %d on: %s against %s, by %.3g relative",
                    step,
                    left,
                    right,
                    relative);
          }
          if (!(relative <= worst)) { // a NaN too
            worst = relative;
            worstStep = step;
          }
        }
      }
    }
    String whole =
        String.format(
            Locale.ROOT,
            "%d lines, steps 1 to %d",
            a.size(),
            a.keySet().iterator().hasNext() ? last(a) : 0);
    String ignored = missing.isEmpty() ? "" : "; only one side has " + String.join(", ", missing);
    if (firstStep.isEmpty()) {
      return new Verdict(true, "identical to the bit: " + whole + ignored);
    }
    firstStep.forEach(
        (field, step) -> {
          if (!field.equals("loss")) {
            differences.add(field + " from step " + step);
          }
        });
    String others =
        differences.isEmpty() ? "" : "; also different: " + String.join(", ", differences);
    return new Verdict(
        false,
        (firstLoss.isEmpty()
                ? "the losses are identical to the bit, other figures are not"
                : firstLoss
                    + String.format(Locale.ROOT, "; at most by %.3g, at step %d", worst, worstStep))
            + " ("
            + whole
            + ")"
            + others
            + ignored);
  }

  private static long last(Map<Key, JsonNode> lines) {
    return lines.keySet().stream().mapToLong(Key::step).max().orElse(0);
  }

  private static Map<Key, JsonNode> read(Path file, long steps) throws IOException {
    Map<Key, JsonNode> lines = new LinkedHashMap<>();
    List<String> texts = Files.readAllLines(file);
    for (int i = 0; i < texts.size(); i++) {
      JsonNode line;
      try {
        line = JSON.readTree(texts.get(i));
      } catch (IOException e) {
        line = null;
      }
      if (line == null
          || !line.path("step").isIntegralNumber()
          || !line.path("event").isTextual()) {
        if (i == texts.size() - 1) {
          break; // the run was ended while it wrote this line
        }
        throw new IllegalArgumentException(file + ":" + (i + 1) + ": not a line of a log");
      }
      long step = line.get("step").longValue();
      // The run is ended after the last step's line, before or after an evaluation.
      boolean compared =
          step < steps || (step == steps && line.get("event").asText().equals("train"));
      if (compared && lines.put(new Key(step, line.get("event").textValue()), line) != null) {
        throw new IllegalArgumentException(
            file + ":" + (i + 1) + ": step " + step + " a second time");
      }
    }
    if (lines.isEmpty() || last(lines) < steps) {
      throw new IllegalArgumentException(
          file + ": ends at step " + last(lines) + ", expected " + steps);
    }
    return lines;
  }
}
