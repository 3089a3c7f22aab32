package bireal.cli;

import bireal.backend.Backend;
import bireal.config.BackendKind;
import bireal.runtime.InputException;
import bireal.train.ReferenceCase;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code bireal verify}: rebuilds reference cases and compares every figure. */
@Command(
    name = "verify",
    description =
        "Rebuild reference cases (java/test-resources/golden) and compare every figure; fails if one is off.")
final class VerifyCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;

  @Parameters(arity = "1..*", paramLabel = "CASE.json", description = "Reference cases.")
  private List<Path> cases;

  @Option(
      names = "--backend",
      defaultValue = "CPU",
      description = "One of ${COMPLETION-CANDIDATES}; default ${DEFAULT-VALUE}.")
  private BackendKind kind;

  @Option(
      names = "--device",
      paramLabel = "N",
      defaultValue = "0",
      description = "Which GPU; default ${DEFAULT-VALUE}.")
  private int device;

  @Option(names = "--failures", description = "Print only the rows that are off.")
  private boolean failuresOnly;

  @Override
  public Integer call() {
    PrintWriter out = spec.commandLine().getOut();
    int code = Main.DONE;
    Table summary = new Table(2, "case", "result", "rows", "off", "worst difference / allowed");
    for (Path path : cases) {
      try (Backend backend = Backends.open(kind, device, true, 0)) {
        ReferenceCase.Report report = ReferenceCase.load(path).run(backend);
        print(out, report);
        long off = report.rows().stream().filter(row -> !row.passed()).count();
        double worst =
            report.rows().stream()
                .filter(ReferenceCase.Row::judged)
                .mapToDouble(row -> row.difference() == 0 ? 0 : row.difference() / row.allowed())
                .max()
                .orElse(0);
        summary.row(
            report.name(),
            report.passed() ? "passed" : "FAILED",
            Integer.toString(report.rows().size()),
            Long.toString(off),
            String.format(Locale.ROOT, "%.3f", worst));
        code = report.passed() ? code : Math.max(code, Main.FAILURE);
      } catch (InputException e) {
        summary.row(path.getFileName().toString(), "NOT READ", "", "", "");
        out.println(e.getMessage() + "\n");
        code = Main.WRONG_INPUT;
      }
    }
    summary.print(out);
    out.flush();
    return code;
  }

  private void print(PrintWriter out, ReferenceCase.Report report) {
    Table table = new Table(1, report.name(), "expected", "got", "difference", "allowed", "");
    int printed = 0;
    for (ReferenceCase.Row row : report.rows()) {
      if (!failuresOnly || !row.passed()) {
        table.row(
            row.what(),
            number(row.expected()),
            number(row.got()),
            number(row.difference()),
            number(row.allowed()),
            !row.judged() ? "shown" : row.passed() ? "ok" : "OFF");
        printed++;
      }
    }
    if (printed > 0) {
      table.print(out);
      out.println();
    }
    if (report.looseGradients() > 0) {
      out.printf(
          "%d gradients needed the looser bound, %d may%n%n",
          report.looseGradients(), report.allowedLooseGradients());
    }
  }

  private static String number(double value) {
    return String.format(Locale.ROOT, "%.6g", value);
  }
}
