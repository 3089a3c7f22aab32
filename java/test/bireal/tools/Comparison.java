package bireal.tools;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.OptionalDouble;

/** Accuracy by epoch of several runs, from their logs: a table and a plot. */
public final class Comparison {
  private static final String USAGE =
      """
      usage: scripts/tool.sh Comparison OUT TITLE NAME=RUN[,RUN...]...
      Reads log.jsonl of each run folder. Prints a Markdown table of the last test accuracy of each RUN (the seeds of
      NAME) and draws the mean over the seeds by epoch, stages one after the other, into OUT.png and OUT.svg.\
      """;

  private Comparison() {}

  /** Test accuracy, percent, after epoch {@code epoch}, counted over all stages of the run. */
  private record Evaluation(double epoch, double top1, double top5) {}

  public static void main(String[] args) throws IOException {
    if (args.length < 3) {
      System.err.println(USAGE);
      System.exit(2);
    }
    Map<String, List<List<Evaluation>>> networks = new LinkedHashMap<>();
    int seeds = 0;
    for (String argument : Arrays.asList(args).subList(2, args.length)) {
      String[] parts = argument.split("=", 2);
      if (parts.length < 2) {
        throw new IllegalArgumentException("expected NAME=RUN[,RUN...], got " + argument);
      }
      List<List<Evaluation>> runs = new ArrayList<>();
      for (String run : parts[1].split(",", -1)) {
        runs.add(evaluations(Path.of(run, "log.jsonl")));
      }
      networks.put(parts[0], runs);
      seeds = Math.max(seeds, runs.size());
    }
    StringBuilder table = new StringBuilder("| network | epochs |");
    for (int i = 0; i < seeds; i++) {
      table.append(" top-1 %, run ").append(i + 1).append(" |");
    }
    table.append(" mean top-1 % | mean top-5 % |\n|---|---|").append("---|".repeat(seeds + 2));
    table.append('\n');
    List<Plot.Line> lines = new ArrayList<>();
    networks.forEach(
        (name, runs) -> {
          table.append("| ").append(name).append(" | ");
          table.append(number("%.0f", last(runs.get(0)).epoch())).append(" |");
          double top1 = 0;
          double top5 = 0;
          for (List<Evaluation> run : runs) {
            table.append(' ').append(number("%.2f", last(run).top1())).append(" |");
            top1 += last(run).top1() / runs.size();
            top5 += last(run).top5() / runs.size();
          }
          table.append(' ').append(number("%.2f", top1));
          table.append(" | ").append(number("%.2f", top5)).append(" |\n");
          lines.add(mean(name, runs));
        });
    double lowest =
        lines.stream().flatMap(line -> line.y().stream()).mapToDouble(y -> y).min().orElseThrow();
    Plot.write(
        Path.of(args[0]),
        args[1],
        "epoch",
        "test accuracy, top-1 %",
        lines,
        OptionalDouble.of(Math.floor(lowest / 5) * 5));
    System.out.print(table);
  }

  private static List<Evaluation> evaluations(Path log) throws IOException {
    ObjectMapper json = new ObjectMapper();
    List<Evaluation> found = new ArrayList<>();
    String stage = null;
    double before = 0; // epochs of the stages before
    double last = 0;
    for (String line : Files.readAllLines(log)) {
      JsonNode node = json.readTree(line);
      if (!node.path("event").asText().equals("eval")) {
        continue;
      }
      String its = node.path("stage").asText();
      if (stage != null && !its.equals(stage)) {
        before += last;
      }
      stage = its;
      last = node.path("epoch").asDouble();
      found.add(
          new Evaluation(
              before + last, node.path("top1").asDouble(), node.path("top5").asDouble()));
    }
    if (found.isEmpty()) {
      throw new IllegalArgumentException(log + " has no evaluation");
    }
    return found;
  }

  private static Evaluation last(List<Evaluation> run) {
    return run.get(run.size() - 1);
  }

  private static Plot.Line mean(String name, List<List<Evaluation>> runs) {
    List<Double> x = new ArrayList<>();
    List<Double> y = new ArrayList<>();
    for (int i = 0; i < runs.get(0).size(); i++) {
      double sum = 0;
      for (List<Evaluation> run : runs) {
        if (run.size() != runs.get(0).size() || run.get(i).epoch() != runs.get(0).get(i).epoch()) {
          throw new IllegalArgumentException("the runs of " + name + " differ in their epochs");
        }
        sum += run.get(i).top1();
      }
      x.add(runs.get(0).get(i).epoch());
      y.add(sum / runs.size());
    }
    return new Plot.Line(name, x, y);
  }

  private static String number(String format, double value) {
    return String.format(Locale.ROOT, format, value);
  }
}
