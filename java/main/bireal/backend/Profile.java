package bireal.backend;

import java.io.BufferedWriter;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * Times every op of a backend: {@link #wrap} it, run, then ask for the rows or write a trace. Costs
 * some microseconds a call; the numbers of a run do not change. Of passes side by side the times
 * add up to more than has passed.
 */
public final class Profile {
  /** Calls of one op and their time. */
  public record Row(String op, long calls, double totalMs) {}

  /** Events kept for the trace: some 100 MB of text at most; the rows count everything. */
  private static final int MAX_EVENTS = 1_000_000;

  /** Questions rather than work. */
  private static final Set<String> NOT_TIMED =
      Set.of(
          "description",
          "availableBytes",
          "evaluation",
          "lanes",
          "evaluationImages",
          "passes",
          "equals",
          "hashCode",
          "toString");

  private record Event(String op, long startNs, long durationNs) {}

  private final Map<String, long[]> totals = new HashMap<>();
  private final List<Event> events = new ArrayList<>();
  private final long originNs = System.nanoTime();

  /** The same backend, timed; what it throws passes through. */
  public Backend wrap(Backend backend) {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, args) -> {
              long start = System.nanoTime();
              try {
                Object result = method.invoke(backend, args);
                return method.getName().equals("evaluation") ? wrap((Backend) result) : result;
              } catch (InvocationTargetException e) {
                throw e.getCause();
              } finally {
                String op = method.getName();
                if (!NOT_TIMED.contains(op) && !op.endsWith("Bytes")) {
                  add(op, start, System.nanoTime() - start);
                }
              }
            });
  }

  private synchronized void add(String op, long startNs, long durationNs) {
    long[] total = totals.computeIfAbsent(op, key -> new long[2]);
    total[0]++;
    total[1] += durationNs;
    if (events.size() < MAX_EVENTS) {
      events.add(new Event(op, startNs, durationNs));
    }
  }

  /** Longest total first. */
  public List<Row> rows() {
    List<Row> rows = new ArrayList<>();
    totals.forEach((op, total) -> rows.add(new Row(op, total[0], total[1] / 1e6)));
    rows.sort((a, b) -> Double.compare(b.totalMs(), a.totalMs()));
    return rows;
  }

  /** Milliseconds since the profile began. */
  public double elapsedMs() {
    return (System.nanoTime() - originNs) / 1e6;
  }

  /** Writes the events in the Trace Event Format, which chrome://tracing and Perfetto open. */
  public void writeTrace(Path file) throws IOException {
    try (BufferedWriter out = Files.newBufferedWriter(file, StandardCharsets.UTF_8)) {
      out.write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
      String separator = "\n";
      for (Event event : events) {
        out.write(
            String.format(
                Locale.ROOT,
                "%s{\"name\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f}",
                separator,
                event.op,
                (event.startNs - originNs) / 1e3,
                event.durationNs / 1e3));
        separator = ",\n";
      }
      out.write("\n]}\n");
    }
  }
}
