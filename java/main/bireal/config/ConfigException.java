package bireal.config;

import bireal.runtime.InputException;

/**
 * A config or an override is wrong. The message starts with the place ({@code file:line:column}, or
 * the override as typed), then names the key, what is wrong and the fix.
 */
public final class ConfigException extends InputException {
  private static final long serialVersionUID = 1L;
  private final String place;
  private final String key;

  ConfigException(Place place, String key, String problem) {
    super(place + ": " + (key.isEmpty() ? "" : key + " ") + problem);
    this.place = place.toString();
    this.key = key;
  }

  /** {@code file:line:column}, {@code file} if no single line is to blame, or the override. */
  public String place() {
    return place;
  }

  /** Dotted path such as {@code train.batch}; empty if the file as a whole is wrong. */
  public String key() {
    return key;
  }
}
