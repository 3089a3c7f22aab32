package bireal.cli;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;

/**
 * Aligned columns for a terminal: the first column and those named in {@code left} to the left, the
 * others to the right.
 */
final class Table {
  private final List<String[]> rows = new ArrayList<>();
  private final int leftColumns;

  Table(int leftColumns, String... header) {
    this.leftColumns = leftColumns;
    rows.add(header);
  }

  void row(String... cells) {
    rows.add(cells);
  }

  void print(PrintWriter out) {
    int[] widths = new int[rows.get(0).length];
    for (String[] row : rows) {
      for (int i = 0; i < row.length; i++) {
        widths[i] = Math.max(widths[i], row[i].length());
      }
    }
    boolean header = true;
    for (String[] row : rows) {
      StringBuilder line = new StringBuilder();
      for (int i = 0; i < row.length; i++) {
        String pad = " ".repeat(widths[i] - row[i].length());
        line.append(i == 0 ? "" : "  ").append(i < leftColumns ? row[i] + pad : pad + row[i]);
      }
      out.println(line.toString().stripTrailing());
      if (header) {
        int total = -2;
        for (int width : widths) {
          total += width + 2;
        }
        out.println("-".repeat(total));
        header = false;
      }
    }
  }
}
