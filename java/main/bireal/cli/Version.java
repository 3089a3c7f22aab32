package bireal.cli;

import picocli.CommandLine.IVersionProvider;

/** Version and commit of this build, from the jar's manifest (pom.xml writes them). */
public final class Version implements IVersionProvider {
  @Override
  public String[] getVersion() {
    return new String[] {"bireal " + text()};
  }

  /** Such as {@code 0.1.0+3f2a91c04d1e-dirty}; without a commit if built outside git. */
  public static String text() {
    String version = Version.class.getPackage().getImplementationVersion();
    return version == null ? "unpackaged build" : version.replace("+${git.commit}", "");
  }
}
