package bireal.tools;

import java.awt.BasicStroke;
import java.awt.Color;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.OptionalDouble;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.VectorGraphicsEncoder;
import org.knowm.xchart.VectorGraphicsEncoder.VectorGraphicsFormat;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.Styler;
import org.knowm.xchart.style.markers.SeriesMarkers;

/** Line plots of measurements, as PNG and SVG. */
public final class Plot {
  /** One line of a plot: values y over x, equally many. */
  public record Line(String name, List<Double> x, List<Double> y) {}

  private static final String USAGE =
      """
      usage: scripts/tool.sh Plot OUT TITLE X_LABEL Y_LABEL FILE.csv:X_COLUMN:Y_COLUMN[:NAME]...
      Draws columns of CSV files, named by their first line, into OUT.png and OUT.svg; NAME is the
      line's name in the legend (default: Y_COLUMN).\
      """;

  private Plot() {}

  public static void main(String[] args) throws IOException {
    if (args.length < 5) {
      System.err.println(USAGE);
      System.exit(2);
    }
    List<Line> lines = new ArrayList<>();
    for (String text : Arrays.asList(args).subList(4, args.length)) {
      String[] parts = text.split(":", 4);
      if (parts.length < 3) {
        throw new IllegalArgumentException(
            "expected FILE.csv:X_COLUMN:Y_COLUMN[:NAME], got " + text);
      }
      Path file = Path.of(parts[0]);
      lines.add(
          new Line(
              parts.length == 4 ? parts[3] : parts[2],
              column(file, parts[1]),
              column(file, parts[2])));
    }
    write(Path.of(args[0]), args[1], args[2], args[3], lines);
    System.out.println("plot: " + args[0] + ".png, " + args[0] + ".svg");
  }

  /** The values of a column of a CSV file whose first line names the columns. */
  public static List<Double> column(Path file, String name) throws IOException {
    List<String> rows = Files.readAllLines(file);
    if (rows.isEmpty()) {
      throw new IllegalArgumentException(file + " is empty; expected a line of column names");
    }
    int column = Arrays.asList(rows.get(0).split(",", -1)).indexOf(name);
    if (column < 0) {
      throw new IllegalArgumentException(
          file + " has no column " + name + "; its columns are " + rows.get(0));
    }
    List<Double> values = new ArrayList<>();
    for (int i = 1; i < rows.size(); i++) {
      String[] fields = rows.get(i).split(",", -1);
      try {
        values.add(Double.valueOf(fields[column]));
      } catch (NumberFormatException | ArrayIndexOutOfBoundsException e) {
        throw new IllegalArgumentException(
            file + ":" + (i + 1) + ": no number in column " + name + ": " + rows.get(i), e);
      }
    }
    return values;
  }

  /** Writes {@code out.png} and {@code out.svg}; the y axis starts at 0 unless a value is below. */
  public static void write(Path out, String title, String xLabel, String yLabel, List<Line> lines)
      throws IOException {
    boolean negative = lines.stream().flatMap(line -> line.y().stream()).anyMatch(y -> y < 0);
    write(
        out,
        title,
        xLabel,
        yLabel,
        lines,
        negative ? OptionalDouble.empty() : OptionalDouble.of(0));
  }

  /** As above, with the lowest value of the y axis. */
  static void write(
      Path out, String title, String xLabel, String yLabel, List<Line> lines, OptionalDouble lowest)
      throws IOException {
    System.setProperty("java.awt.headless", "true");
    XYChart chart =
        new XYChartBuilder()
            .width(900)
            .height(480)
            .title(title)
            .xAxisTitle(xLabel)
            .yAxisTitle(yLabel)
            .theme(Styler.ChartTheme.Matlab)
            .build();
    chart.getStyler().setLegendPosition(Styler.LegendPosition.OutsideS);
    chart.getStyler().setLegendLayout(Styler.LegendLayout.Horizontal);
    chart.getStyler().setChartBackgroundColor(Color.WHITE);
    for (Line line : lines) {
      if (line.x().isEmpty()) {
        throw new IllegalArgumentException("the line " + line.name() + " has no point");
      }
      var series = chart.addSeries(line.name(), line.x(), line.y());
      series.setMarker(SeriesMarkers.NONE);
      series.setLineStyle(new BasicStroke(1.5f));
    }
    lowest.ifPresent(y -> chart.getStyler().setYAxisMin(y));
    BitmapEncoder.saveBitmap(chart, out.toString(), BitmapEncoder.BitmapFormat.PNG);
    VectorGraphicsEncoder.saveVectorGraphic(chart, out.toString(), VectorGraphicsFormat.SVG);
    // Text is outlines with eight digits a coordinate; two are enough and halve the file.
    Path svg = Path.of(out + ".svg");
    Files.writeString(svg, Files.readString(svg).replaceAll("(\\.\\d\\d)\\d+", "$1"));
  }
}
