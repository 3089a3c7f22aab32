package bireal.train;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Names of tensors as a config gives them: exact, or with * for any run of characters. Knows which
 * patterns have matched, so that one that matches nothing is an error and not a typing mistake that
 * nobody sees.
 */
final class NamePatterns {
  private final String key;
  private final List<String> texts;
  private final List<Pattern> patterns;
  private final boolean[] used;

  /** {@code key} is the config's, for messages. */
  NamePatterns(String key, List<String> texts) {
    this.key = key;
    this.texts = texts;
    this.patterns =
        texts.stream()
            .map(
                text ->
                    Pattern.compile(
                        Arrays.stream(text.split("\\*", -1))
                            .map(Pattern::quote)
                            .collect(Collectors.joining(".*"))))
            .toList();
    this.used = new boolean[texts.size()];
  }

  boolean matches(String name) {
    boolean any = false;
    for (int i = 0; i < used.length; i++) {
      if (patterns.get(i).matcher(name).matches()) {
        used[i] = true;
        any = true;
      }
    }
    return any;
  }

  /** Throws IllegalArgumentException naming the patterns that matched none of {@code names}. */
  void requireAllUsed(Collection<String> names) {
    List<String> unused = new ArrayList<>();
    for (int i = 0; i < used.length; i++) {
      if (!used[i]) {
        unused.add("'" + texts.get(i) + "'");
      }
    }
    if (!unused.isEmpty()) {
      throw new IllegalArgumentException(
          key
              + ": "
              + String.join(", ", unused)
              + " matches no tensor; the names are "
              + names.stream().limit(12).collect(Collectors.joining(", "))
              + (names.size() > 12 ? " and " + (names.size() - 12) + " more" : "")
              + ". Correct the pattern (* stands for anything) or remove it");
    }
  }
}
