package bireal.tools;

import bireal.runtime.InputException;
import com.sun.management.ThreadMXBean;
import java.io.IOException;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;

/**
 * Damages every kind of file that bireal reads and lets bireal read it. Each input must be read or
 * refused: with the exception that is documented for it, in a message that names the place and can
 * be shown in a terminal, within a time and within a number of allocated bytes.
 */
public final class Fuzz {
  /** One kind of file, in a folder that the target fills with what must stand beside it. */
  interface Target {
    String name();

    /** Writes the valid files; the returned one is what gets damaged. */
    Path prepare(Path folder) throws IOException;

    byte[] next(Random random) throws IOException;

    /** Reads what was prepared, all of it; called with the damaged file in place. */
    void read() throws IOException;

    /** The only exception that {@link #read} may throw. */
    Class<? extends InputException> refusal();

    /** What the message must contain to name the place. */
    default String place(Path folder) {
      return folder.toString();
    }

    /** Bytes that reading a file of this size may allocate in all. */
    long allocationLimit(long fileBytes);
  }

  /** An input that broke a rule. */
  static final class Failure extends RuntimeException {
    private static final long serialVersionUID = 1L;

    Failure(String message, Throwable cause) {
      super(message, cause);
    }
  }

  /** What became of the inputs of one target. */
  static final class Count {
    private long read;
    private long refused;
    private long nanos;
    private long mostAllocated;

    long read() {
      return read;
    }

    long refused() {
      return refused;
    }

    String text() {
      return String.format(
          Locale.ROOT,
          "%,d inputs, %,.0f/s, %.0f%% refused, at most %.1f MB allocated",
          read + refused,
          (read + refused) / (nanos / 1e9),
          100.0 * refused / (read + refused),
          mostAllocated / 1e6);
    }
  }

  /** Far above what any input takes; a shared machine may stand still for seconds. */
  static final int TIME_LIMIT_SECONDS = 20;

  private static final int LONGEST_MESSAGE = 3000;

  private static final String USAGE =
      """
      usage: scripts/fuzz.sh [--minutes M] [--seed S] [TARGET]...
             scripts/fuzz.sh --replay FILE TARGET
      Damages the files that bireal reads and reads them, for M minutes (default 10; parts of one are
      fine), all targets in turn. Ends with 1 at the first input that is neither read nor refused as
      documented, and saves it to target/fuzz; --replay reads such a file again.""";

  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  private final Path folder;
  private final long seed;
  private final Map<Target, Path> files = new LinkedHashMap<>();
  private final Map<Target, Count> counts = new LinkedHashMap<>();

  // For the watchdog.
  private volatile long startedNs;
  private volatile byte[] current;
  private volatile Target target;

  /** {@code folder} is empty and the fuzzer's own. */
  Fuzz(Path folder, long seed, List<Target> targets) throws IOException {
    this.folder = folder;
    this.seed = seed;
    for (Target each : targets) {
      Path own = Files.createDirectories(folder.resolve(each.name()));
      files.put(each, each.prepare(own));
      counts.put(each, new Count());
      for (int i = 0; i < 3; i++) { // also loads the classes, which allocates
        each.read();
      }
    }
  }

  public static void main(String[] args) throws Exception {
    double minutes = 10;
    long seed = System.nanoTime() & 0xffffffffL;
    Path replay = null;
    List<String> names = new ArrayList<>();
    for (int i = 0; i < args.length; i++) {
      switch (args[i]) {
        case "--minutes" -> minutes = Double.parseDouble(value(args, i++));
        case "--seed" -> seed = Long.parseLong(value(args, i++));
        case "--replay" -> replay = Path.of(value(args, i++));
        case "--help" -> {
          System.out.println(USAGE + "\nTargets: " + names(FuzzTargets.all()));
          return;
        }
        default -> names.add(args[i]);
      }
    }
    List<Target> chosen =
        FuzzTargets.all().stream()
            .filter(each -> names.isEmpty() || names.contains(each.name()))
            .toList();
    if (chosen.size() < names.size() || (replay != null && chosen.size() != 1)) {
      usage(
          replay != null
              ? "--replay needs one target of " + names(FuzzTargets.all())
              : "unknown target in " + names + "; there are " + names(FuzzTargets.all()));
    }
    // Where it can be, in memory: a disk would be what is measured.
    Path memory = Path.of("/dev/shm");
    Path folder =
        Files.isWritable(memory)
            ? Files.createTempDirectory(memory, "bireal-fuzz")
            : Files.createTempDirectory("bireal-fuzz");
    int code = 0;
    try {
      Fuzz fuzz = new Fuzz(folder, seed, chosen);
      if (replay != null) {
        fuzz.replay(chosen.get(0), Files.readAllBytes(replay));
      } else {
        System.out.printf(
            Locale.ROOT, "fuzz: %s, %.1f minutes, seed %d%n", names(chosen), minutes, seed);
        code = fuzz.run(minutes, System.out) ? 0 : 1;
      }
    } finally {
      delete(folder);
    }
    System.exit(code);
  }

  private static String value(String[] args, int i) {
    if (i + 1 == args.length) {
      usage(args[i] + " needs a value");
    }
    return args[i + 1];
  }

  private static void usage(String problem) {
    System.err.println("fuzz: error: " + problem + "\n" + USAGE);
    System.exit(2);
  }

  private static String names(List<Target> targets) {
    return targets.stream().map(Target::name).collect(Collectors.joining(" "));
  }

  private static void delete(Path folder) throws IOException {
    try (var tree = Files.walk(folder)) {
      for (Path path : tree.sorted(java.util.Comparator.reverseOrder()).toList()) {
        Files.delete(path);
      }
    }
  }

  Map<Target, Count> counts() {
    return counts;
  }

  /** In a thread of its own, under a watchdog; false if an input failed, which is then saved. */
  private boolean run(double minutes, PrintStream out) throws IOException, InterruptedException {
    long start = System.nanoTime();
    long endNs = start + (long) (minutes * 60e9);
    RuntimeException[] failure = new RuntimeException[1];
    Thread worker =
        new Thread(
            () -> {
              try {
                for (long round = 0; System.nanoTime() < endNs; round++) {
                  round(round, 500_000_000L);
                }
              } catch (RuntimeException e) {
                failure[0] = e;
              }
            },
            "fuzz");
    worker.setDaemon(true); // it may hang
    worker.start();
    long reported = start;
    while (worker.isAlive()) {
      worker.join(200);
      if (startedNs != 0 && System.nanoTime() - startedNs > TIME_LIMIT_SECONDS * 1_000_000_000L) {
        Exception where = new Exception("it hangs here");
        where.setStackTrace(worker.getStackTrace());
        failure[0] =
            new Failure(
                String.format(
                    "%s: not read within %d s (seed %d)", target.name(), TIME_LIMIT_SECONDS, seed),
                where);
        break;
      }
      if (System.nanoTime() - reported > 15_000_000_000L) {
        reported = System.nanoTime();
        out.printf(Locale.ROOT, "fuzz: %.0f s%n", (reported - start) / 1e9);
        report(out);
      }
    }
    report(out);
    if (failure[0] == null) {
      requireBoth();
      out.println("fuzz: passed: every input was read or refused as documented");
      return true;
    }
    Path saved =
        Files.createDirectories(Path.of("target", "fuzz")).resolve("failed-" + target.name());
    Files.write(saved, current);
    StringWriter stack = new StringWriter();
    failure[0].printStackTrace(new PrintWriter(stack));
    out.println(stack);
    out.printf(
        "fuzz: FAILED: %s%nthe input is %s; again with: scripts/fuzz.sh --replay %s %s%n",
        failure[0].getMessage(), saved, saved, target.name());
    return false;
  }

  private void report(PrintStream out) {
    counts.forEach((each, count) -> out.printf("  %-12s %s%n", each.name(), count.text()));
  }

  /** A target none of whose inputs is read, or none refused, tests little. */
  void requireBoth() {
    counts.forEach(
        (each, count) -> {
          if (count.read == 0 || count.refused == 0) {
            throw new Failure(
                each.name() + ": only one of read and refused: " + count.text(), null);
          }
        });
  }

  /** Inputs of every target for {@code nanos} each. */
  private void round(long round, long nanos) {
    for (Target each : files.keySet()) {
      Random random = new Random(seed * 31 + round * 1009 + each.name().hashCode());
      long start = System.nanoTime();
      while (System.nanoTime() - start < nanos) {
        one(each, random);
      }
      counts.get(each).nanos += System.nanoTime() - start;
    }
  }

  /** A fixed number of inputs of one target, in the calling thread: the same ones each time. */
  void inputs(Target each, int inputCount) {
    Random random = new Random(seed * 31 + each.name().hashCode());
    long start = System.nanoTime();
    for (int i = 0; i < inputCount; i++) {
      one(each, random);
    }
    counts.get(each).nanos += System.nanoTime() - start;
  }

  private void one(Target each, Random random) {
    byte[] input;
    try {
      input = each.next(random);
    } catch (IOException e) {
      throw new Failure(each.name() + ": the fuzzer itself failed", e);
    }
    read(each, input);
  }

  /** The last input of {@link #inputs}, for messages. */
  byte[] current() {
    return current;
  }

  private void read(Target each, byte[] input) {
    Count count = counts.get(each);
    target = each;
    current = input;
    Throwable thrown = null;
    try {
      Mutation.rewrite(files.get(each), input);
    } catch (IOException e) {
      throw new Failure(each.name() + ": the fuzzer itself failed", e);
    }
    long before = THREADS.getCurrentThreadAllocatedBytes();
    startedNs = System.nanoTime();
    try {
      each.read();
    } catch (Exception | Error e) {
      thrown = e;
    } finally {
      startedNs = 0;
    }
    long allocated = THREADS.getCurrentThreadAllocatedBytes() - before;
    count.mostAllocated = Math.max(count.mostAllocated, allocated);
    if (allocated > each.allocationLimit(input.length)) {
      throw failure(each, "allocated " + allocated + " bytes for " + input.length, thrown);
    }
    if (thrown == null) {
      count.read++;
      return;
    }
    count.refused++;
    if (!each.refusal().isInstance(thrown)) {
      throw failure(each, "threw " + thrown.getClass().getName(), thrown);
    }
    String message = thrown.getMessage();
    if (!message.contains(each.place(folder.resolve(each.name())))) {
      throw failure(each, "a message that does not name the place: " + message, thrown);
    }
    if (message.length() > LONGEST_MESSAGE) {
      throw failure(each, "a message of " + message.length() + " characters", thrown);
    }
    if (message.codePoints().anyMatch(c -> Character.isISOControl(c) && c != '\n')) {
      throw failure(each, "a message with control characters: " + message, thrown);
    }
  }

  private Failure failure(Target each, String what, Throwable cause) {
    return new Failure(each.name() + ": " + what + " (seed " + seed + ")", cause);
  }

  private void replay(Target each, byte[] input) {
    try {
      read(each, input);
      System.out.println("fuzz: fine: " + counts.get(each).text());
    } catch (Failure e) {
      e.printStackTrace();
      System.exit(1);
    }
  }
}
