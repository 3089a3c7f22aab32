package bireal.train;

import static bireal.train.CheckpointException.quote;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Collections;
import java.util.HexFormat;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A checkpoint folder whose files were all found complete and undamaged. Holds no open file and
 * needs no closing; any thread. It reads from the folder, so it is of use until the folder is
 * pruned.
 */
public final class Checkpoint {
  static final int FORMAT_VERSION = 1;
  static final String MANIFEST = "manifest.json";
  static final String PROGRESS = "progress.json";

  /** What a file in a checkpoint may be called: no folders, nothing hidden. */
  static final Pattern FILE_NAME = Pattern.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}");

  /** The step is part of the name of a checkpoint, also while it makes way for its successor. */
  static final Pattern FOLDER_NAME = Pattern.compile("step_(\\d{8,18})(\\.replaced)?");

  private static final long MAX_JSON_BYTES = 64L << 20;
  private static final int PIECE_BYTES = 1 << 20;
  private static final String DAMAGED = "the checkpoint is damaged: use another one";

  private final Path folder;
  private final long step;
  private final Set<String> tensorFiles;
  private final ObjectNode progress;

  private Checkpoint(Path folder, long step, Set<String> tensorFiles, ObjectNode progress) {
    this.folder = folder;
    this.step = step;
    this.tensorFiles = tensorFiles;
    this.progress = progress;
  }

  public Path folder() {
    return folder;
  }

  /** Optimizer steps done when it was saved. */
  public long step() {
    return step;
  }

  /** Names for {@link #tensors}, sorted. */
  public Set<String> tensorFiles() {
    return tensorFiles;
  }

  /** A copy of what was saved beside the tensors. */
  public ObjectNode progress() {
    return progress.deepCopy();
  }

  /** Opens one of the tensor files; the caller closes it. Throws CheckpointException if absent. */
  public Safetensors tensors(String fileName) {
    if (!tensorFiles.contains(fileName)) {
      throw CheckpointException.at(
          folder,
          "file " + quote(fileName),
          "only " + tensorFiles,
          "it to be there",
          "use a checkpoint of the same kind of run");
    }
    return Safetensors.open(folder.resolve(fileName));
  }

  /** The manifest of files already written: name to bytes and checksum. */
  static ObjectNode manifest(long step, Map<String, Safetensors.Written> files) {
    ObjectNode manifest = StrictJson.newObject();
    manifest.put("format_version", FORMAT_VERSION);
    manifest.put("step", step);
    ObjectNode list = manifest.putObject("files");
    for (Map.Entry<String, Safetensors.Written> file : new TreeMap<>(files).entrySet()) {
      list.putObject(file.getKey())
          .put("bytes", file.getValue().bytes())
          .put("sha256", file.getValue().sha256());
    }
    return manifest;
  }

  /** Reads every byte of the folder's files; throws CheckpointException for the first mismatch. */
  static Checkpoint verify(Path folder) {
    if (!Files.isDirectory(folder)) {
      throw new CheckpointException(folder + ": no such checkpoint folder; correct the path");
    }
    Path file = folder.resolve(MANIFEST);
    ObjectNode manifest = parse(file, readJson(file));
    JsonNode version = manifest.path("format_version");
    if (!version.isInt() || version.intValue() != FORMAT_VERSION) {
      throw CheckpointException.at(
          file,
          "format_version",
          quote(version.toString()),
          Integer.toString(FORMAT_VERSION),
          "use the version of bireal that wrote the checkpoint");
    }
    requireKeys(file, "manifest", manifest, Set.of("format_version", "step", "files"));
    long step = count(file, "step", manifest.path("step"));
    Matcher name = FOLDER_NAME.matcher(String.valueOf(folder.getFileName()));
    if (name.matches() && Long.parseLong(name.group(1)) != step) {
      throw CheckpointException.at(
          file, "step", Long.toString(step), "that of the folder's name", DAMAGED);
    }
    if (!(manifest.path("files") instanceof ObjectNode files)) {
      throw CheckpointException.at(
          file, "files", quote(manifest.path("files").toString()), "an object", DAMAGED);
    }
    Map<String, Safetensors.Written> tensors = new TreeMap<>();
    for (Map.Entry<String, JsonNode> field : files.properties()) {
      tensors.put(field.getKey(), listed(file, field.getKey(), field.getValue()));
    }
    Safetensors.Written progress = tensors.remove(PROGRESS);
    if (progress == null) {
      throw CheckpointException.at(file, "files", "no " + PROGRESS, "it to be listed", DAMAGED);
    }
    tensors.forEach((fileName, listed) -> verifyFile(folder.resolve(fileName), listed));
    Path progressFile = folder.resolve(PROGRESS);
    verifyBytes(progressFile, progress, regularBytes(progressFile));
    byte[] progressJson = readJson(progressFile);
    verifySha256(
        progressFile,
        progress,
        HexFormat.of().formatHex(Safetensors.sha256().digest(progressJson)));
    return new Checkpoint(
        folder,
        step,
        Collections.unmodifiableSet(tensors.keySet()),
        parse(progressFile, progressJson));
  }

  private static Safetensors.Written listed(Path manifest, String fileName, JsonNode node) {
    String place = "file " + quote(fileName);
    if (!FILE_NAME.matcher(fileName).matches() || fileName.equals(MANIFEST)) {
      throw CheckpointException.at(
          manifest, place, "that name", "a plain file name of a checkpoint", DAMAGED);
    }
    if (!(node instanceof ObjectNode object)) {
      throw CheckpointException.at(manifest, place, quote(node.toString()), "an object", DAMAGED);
    }
    requireKeys(manifest, place, object, Set.of("bytes", "sha256"));
    if (!node.path("sha256").isTextual()) {
      throw CheckpointException.at(
          manifest, place, "sha256 " + quote(node.path("sha256").toString()), "text", DAMAGED);
    }
    return new Safetensors.Written(
        count(manifest, place + " bytes", node.path("bytes")), node.path("sha256").textValue());
  }

  private static void requireKeys(Path file, String place, ObjectNode node, Set<String> keys) {
    Set<String> found = new TreeSet<>();
    node.fieldNames().forEachRemaining(found::add);
    if (!found.equals(keys)) {
      throw CheckpointException.at(
          file, place, "keys " + quote(found.toString()), new TreeSet<>(keys).toString(), DAMAGED);
    }
  }

  private static long count(Path file, String place, JsonNode node) {
    if (!node.isIntegralNumber() || !node.canConvertToLong() || node.longValue() < 0) {
      throw CheckpointException.at(
          file, place, quote(node.toString()), "a whole number in 0..2^63-1", DAMAGED);
    }
    return node.longValue();
  }

  private static void verifyFile(Path file, Safetensors.Written listed) {
    verifyBytes(file, listed, regularBytes(file));
    MessageDigest sha256 = Safetensors.sha256();
    try (InputStream in = Files.newInputStream(file)) {
      byte[] piece = new byte[PIECE_BYTES];
      for (int count = in.read(piece); count >= 0; count = in.read(piece)) {
        sha256.update(piece, 0, count);
      }
    } catch (IOException e) {
      throw unreadable(file, e);
    }
    verifySha256(file, listed, HexFormat.of().formatHex(sha256.digest()));
  }

  private static void verifyBytes(Path file, Safetensors.Written listed, long found) {
    if (found != listed.bytes()) {
      throw CheckpointException.at(
          file, "file", found + " bytes", listed.bytes() + " as in " + MANIFEST, DAMAGED);
    }
  }

  private static void verifySha256(Path file, Safetensors.Written listed, String found) {
    if (!found.equals(listed.sha256())) {
      throw CheckpointException.at(
          file,
          "content",
          "SHA-256 " + found,
          quote(listed.sha256()) + " as in " + MANIFEST,
          DAMAGED);
    }
  }

  /** Its length; throws CheckpointException if it is missing or not a plain file. */
  private static long regularBytes(Path file) {
    try {
      if (!Files.isRegularFile(file)) {
        throw CheckpointException.at(
            file,
            "file",
            DurableFiles.exists(file) ? "something else" : "no file",
            "a regular file",
            DAMAGED);
      }
      return Files.size(file);
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  private static byte[] readJson(Path file) {
    long bytes = regularBytes(file);
    if (bytes > MAX_JSON_BYTES) {
      throw CheckpointException.at(
          file, "file", bytes + " bytes", "at most " + MAX_JSON_BYTES, DAMAGED);
    }
    try {
      return Files.readAllBytes(file);
    } catch (IOException e) {
      throw unreadable(file, e);
    }
  }

  private static ObjectNode parse(Path file, byte[] json) {
    try {
      return StrictJson.parseObject(json);
    } catch (IOException e) {
      throw CheckpointException.at(file, "content", e.getMessage(), "one JSON object", DAMAGED);
    }
  }

  private static CheckpointException unreadable(Path file, IOException e) {
    return new CheckpointException(
        file + ": cannot be read (" + e + "); check the disk and the permissions", e);
  }
}
