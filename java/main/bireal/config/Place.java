package bireal.config;

/**
 * Where something was written.
 *
 * @param source file as the user named it, or the override
 * @param line from 1; 0 = the source as a whole
 * @param column from 1; 0 = the source as a whole
 * @param builtIn true for the built-in defaults, which no message may blame
 */
record Place(String source, int line, int column, boolean builtIn) {
  static Place of(String source) {
    return new Place(source, 0, 0, false);
  }

  @Override
  public String toString() {
    return line == 0 ? source : source + ":" + line + ":" + column;
  }
}
