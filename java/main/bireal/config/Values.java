package bireal.config;

import java.lang.reflect.RecordComponent;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.yaml.snakeyaml.nodes.NodeId;
import org.yaml.snakeyaml.nodes.Tag;
import org.yaml.snakeyaml.resolver.Resolver;

/** How names and values of the records are spelt in YAML. */
final class Values {
  private static final Pattern INTEGER = Pattern.compile("[-+]?(0|[1-9][0-9]*)");
  private static final Pattern NUMBER =
      Pattern.compile("[-+]?((0|[1-9][0-9]*)(\\.[0-9]*)?|\\.[0-9]+)([eE][-+]?[0-9]+)?");
  private static final Resolver RESOLVER = new Resolver();

  private Values() {}

  /** {@code labelSmoothing} -> {@code label_smoothing}. */
  static String key(RecordComponent component) {
    return component.getName().replaceAll("([A-Z])", "_$1").toLowerCase(Locale.ROOT);
  }

  static String spelling(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }

  static String spellings(Class<?> enumType) {
    return Arrays.stream(enumType.getEnumConstants())
        .map(value -> spelling((Enum<?>) value))
        .collect(Collectors.joining(", "));
  }

  static boolean isInteger(String plain) {
    return INTEGER.matcher(plain).matches();
  }

  static boolean isNumber(String plain) {
    return NUMBER.matcher(plain).matches();
  }

  /** True if YAML, in any of its versions, reads the unquoted text as text. */
  static boolean isText(String plain) {
    return !isNumber(plain) && RESOLVER.resolve(NodeId.scalar, plain, true).equals(Tag.STR);
  }

  /** True if the text can be shown on a line and written to a file as it is. */
  static boolean isPrintable(String text) {
    return text.codePoints()
        .noneMatch(
            c ->
                Character.isISOControl(c)
                    || c == 0x2028
                    || c == 0x2029
                    || c == 0xFEFF
                    || (c & 0xFFFE) == 0xFFFE
                    || Character.getType(c) == Character.SURROGATE);
  }

  /** For messages: in quotes, on one line, not long. */
  static String quote(String text) {
    return "'" + printable(text, 40) + (text.codePointCount(0, text.length()) > 40 ? "...'" : "'");
  }

  /** On one line, with '?' for what cannot be shown. */
  static String printable(String text, int most) {
    StringBuilder shown = new StringBuilder();
    text.codePoints()
        .limit(most)
        .map(c -> isPrintable(Character.toString(c)) ? c : '?')
        .forEach(shown::appendCodePoint);
    return shown.toString();
  }

  /** The candidate that {@code typed} is most likely a misspelling of. */
  static Optional<String> nearest(String typed, List<String> candidates) {
    if (typed.length() > 60) {
      return Optional.empty();
    }
    return candidates.stream()
        .filter(candidate -> distance(typed, candidate) < candidate.length())
        .filter(candidate -> distance(typed, candidate) <= Math.max(2, candidate.length() / 3))
        .min(Comparator.comparingInt(candidate -> distance(typed, candidate)));
  }

  /** Edits (insert, delete, replace a character) that lead from one word to the other. */
  private static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    Arrays.setAll(row, j -> j);
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int replaced = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(replaced, Math.min(row[j], row[j - 1]) + 1);
      }
    }
    return row[b.length()];
  }
}
