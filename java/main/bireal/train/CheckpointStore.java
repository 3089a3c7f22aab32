package bireal.train;

import static bireal.train.Checkpoint.FOLDER_NAME;
import static bireal.train.Checkpoint.MANIFEST;
import static bireal.train.Checkpoint.PROGRESS;
import static bireal.train.CheckpointException.quote;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Consumer;
import java.util.regex.Matcher;

/**
 * The checkpoints of a run: folders {@code step_00001000} below one folder, and {@code best.json}
 * that points to one of them. One writer, which holds the run's lock, on one thread; any number of
 * readers.
 *
 * <p>A folder called {@code step_N} is complete, whenever the process or the machine stops. Saving
 * builds {@code step_N.tmp}, syncs it and renames it. A {@code step_N} that is there already is
 * renamed to {@code step_N.replaced} just before, and counts as the checkpoint until its successor
 * has the name. Deleting renames to {@code step_N.deleting} first. What a crash left behind is
 * cleared up when the next writer opens the store. Content depends on the arguments only: two runs
 * that save the same write the same bytes.
 */
public final class CheckpointStore {
  private static final String REPLACED = ".replaced";
  private static final String DELETING = ".deleting";
  private static final String BEST = "best.json";

  /** So that readers of the PyTorch world accept the files; the names and layouts are its own. */
  private static final Map<String, String> METADATA = Map.of("format", "pt");

  private final Path folder;
  private final boolean writer;
  private final Consumer<String> faultPoint;

  /** A checkpoint that was not looked into yet. */
  public record Saved(long step, Path folder) {}

  /** Content of {@code best.json}. */
  public record BestMark(long step, double metric) {}

  private CheckpointStore(Path folder, boolean writer, Consumer<String> faultPoint) {
    this.folder = folder;
    this.writer = writer;
    this.faultPoint = faultPoint;
  }

  /** Creates the folder if need be and clears up after a crash; the caller holds the run's lock. */
  public static CheckpointStore forWriting(Path folder) {
    return forWriting(folder, place -> {});
  }

  /** {@code faultPoint} is told each place where a crash may happen, before it is passed. */
  static CheckpointStore forWriting(Path folder, Consumer<String> faultPoint) {
    CheckpointStore store = new CheckpointStore(folder, true, faultPoint);
    try {
      Files.createDirectories(folder);
      DurableFiles.syncFolder(folder.toAbsolutePath().getParent());
      store.clearUp();
      // Now, not at the first checkpoint: a folder that cannot be written.
      Path probe = folder.resolve("probe" + DurableFiles.TMP);
      Files.deleteIfExists(probe);
      Files.delete(Files.createFile(probe));
      return store;
    } catch (IOException | UncheckedIOException e) {
      throw store.failed("open the checkpoints in", e);
    }
  }

  /** Changes nothing, so it may look at a run that another process is writing. */
  public static CheckpointStore forReading(Path folder) {
    return new CheckpointStore(folder, false, place -> {});
  }

  /**
   * Verifies one checkpoint, wherever it lies; throws CheckpointException naming the damage and, if
   * there is one beside it, the good checkpoint before it.
   */
  public static Checkpoint open(Path checkpoint) {
    try {
      return Checkpoint.verify(checkpoint);
    } catch (CheckpointException e) {
      Path name = checkpoint.getFileName();
      Matcher step = FOLDER_NAME.matcher(String.valueOf(name));
      if (!step.matches() || !Files.isDirectory(checkpoint)) {
        throw e;
      }
      CheckpointStore siblings = forReading(checkpoint.toAbsolutePath().getParent());
      Optional<Checkpoint> good = siblings.newestGoodBefore(Long.parseLong(step.group(1)), e);
      if (good.isEmpty()) {
        throw new CheckpointException(
            e.getMessage() + "; there is no good checkpoint before it", e);
      }
      throw CheckpointException.withGood(
          e.getMessage() + "; the previous good checkpoint is " + good.get().folder(),
          e,
          good.get().step());
    }
  }

  /**
   * Opens a tensor file, wherever it lies. One of a checkpoint is verified with it, as {@link
   * #open} does: its format has no checksum, so a flipped bit would just be another weight.
   */
  public static Safetensors openTensors(Path file) {
    Path folder = file.toAbsolutePath().getParent();
    Path name = file.getFileName();
    if (folder == null || name == null || !Files.exists(folder.resolve(MANIFEST))) {
      return Safetensors.open(file);
    }
    Checkpoint checkpoint = open(folder);
    return checkpoint.tensorFiles().contains(name.toString())
        ? checkpoint.tensors(name.toString())
        : Safetensors.open(file);
  }

  private Optional<Checkpoint> newestGoodBefore(long step, CheckpointException damage) {
    List<Saved> older = list().stream().filter(saved -> saved.step() < step).toList();
    for (int i = older.size() - 1; i >= 0; i--) {
      try {
        return Optional.of(Checkpoint.verify(older.get(i).folder()));
      } catch (CheckpointException e) {
        damage.addSuppressed(e);
      }
    }
    return Optional.empty();
  }

  /** All checkpoints by rising step; empty if the folder does not exist. */
  public List<Saved> list() {
    if (!Files.isDirectory(folder)) {
      return List.of();
    }
    try {
      Map<Long, Saved> found = new TreeMap<>();
      for (Path path : children()) {
        String fileName = path.getFileName().toString();
        Matcher name = FOLDER_NAME.matcher(fileName);
        if (!name.matches() || !Files.isDirectory(path)) {
          continue;
        }
        Saved saved = new Saved(Long.parseLong(name.group(1)), path);
        if (fileName.equals(name(saved.step()))) {
          found.put(saved.step(), saved);
        } else if (fileName.equals(name(saved.step()) + REPLACED)) {
          found.putIfAbsent(saved.step(), saved);
        }
      }
      return List.copyOf(found.values());
    } catch (IOException | UncheckedIOException e) {
      throw failed("list the checkpoints in", e);
    }
  }

  /** The newest checkpoint, verified; throws CheckpointException as {@link #open} does. */
  public Optional<Checkpoint> latest() {
    List<Saved> all = list();
    return all.isEmpty() ? Optional.empty() : Optional.of(open(all.get(all.size() - 1).folder()));
  }

  /** The checkpoint of a step, verified; throws CheckpointException if there is none. */
  public Checkpoint at(long step) {
    List<Saved> all = list();
    for (Saved saved : all) {
      if (saved.step() == step) {
        return open(saved.folder());
      }
    }
    throw new CheckpointException(
        folder
            + " has no checkpoint of step "
            + step
            + "; its steps are "
            + all.stream().map(saved -> Long.toString(saved.step())).toList());
  }

  /** What {@link #markBest} wrote last; throws CheckpointException if it is damaged. */
  public Optional<BestMark> bestMark() {
    Path file = folder.resolve(BEST);
    String fix = "delete it: the next evaluation writes a new one";
    ObjectNode json;
    try {
      if (!DurableFiles.exists(file)) {
        return Optional.empty();
      }
      if (!Files.isRegularFile(file) || Files.size(file) > 1000) {
        throw CheckpointException.at(file, "file", "something else", "a small file", fix);
      }
      json = StrictJson.parseObject(Files.readAllBytes(file));
    } catch (IOException e) {
      throw CheckpointException.at(file, "content", e.getMessage(), "one JSON object", fix);
    }
    JsonNode step = json.path("step");
    JsonNode metric = json.path("metric");
    boolean good =
        json.size() == 2
            && step.isIntegralNumber()
            && step.canConvertToLong()
            && step.longValue() >= 0
            && metric.isNumber()
            && Double.isFinite(metric.doubleValue());
    if (!good) {
      throw CheckpointException.at(
          file, "content", quote(json.toString()), "a step and a finite metric", fix);
    }
    return Optional.of(new BestMark(step.longValue(), metric.doubleValue()));
  }

  /** The checkpoint of {@link #bestMark}, verified; throws CheckpointException if it is gone. */
  public Optional<Checkpoint> best() {
    Optional<BestMark> mark = bestMark();
    if (mark.isEmpty()) {
      return Optional.empty();
    }
    long step = mark.get().step();
    if (list().stream().anyMatch(saved -> saved.step() == step)) {
      return Optional.of(at(step));
    }
    throw CheckpointException.at(
        folder.resolve(BEST),
        "step",
        Long.toString(step),
        "the step of a checkpoint in " + folder,
        "delete " + BEST + " or put " + name(step) + " back");
  }

  /**
   * Saves a checkpoint: one safetensors file for each key of {@code files}, and {@code progress}.
   * It is durable when this returns. Throws IllegalArgumentException if step &lt; 0 or a file name
   * is not plain; CheckpointException if writing fails, and then the checkpoints before are as they
   * were.
   */
  public Path save(long step, Map<String, List<NamedTensor>> files, ObjectNode progress) {
    requireWriter();
    if (step < 0) {
      throw new IllegalArgumentException("step must be >= 0, got " + step);
    }
    for (String name : files.keySet()) {
      if (!Checkpoint.FILE_NAME.matcher(name).matches() || name.endsWith(".json")) {
        throw new IllegalArgumentException(
            "a tensor file's name must match "
                + Checkpoint.FILE_NAME
                + " and not end in .json, got "
                + quote(name));
      }
    }
    Path target = folder.resolve(name(step));
    Path tmp = folder.resolve(name(step) + DurableFiles.TMP);
    try {
      clearUp(step);
      writeFiles(tmp, step, files, progress);
      putInPlace(step, tmp, target);
      return target;
    } catch (IOException | RuntimeException e) {
      try {
        clearUp(step);
      } catch (IOException | RuntimeException again) {
        e.addSuppressed(again); // the next writer clears up
      }
      if (e instanceof RuntimeException caller && !(e instanceof UncheckedIOException)) {
        throw caller;
      }
      throw failed("save the checkpoint of step " + step + " in", e);
    }
  }

  private void writeFiles(
      Path tmp, long step, Map<String, List<NamedTensor>> files, ObjectNode progress)
      throws IOException {
    faultPoint.accept("before the folder");
    Files.createDirectory(tmp);
    Map<String, Safetensors.Written> written = new TreeMap<>();
    for (Map.Entry<String, List<NamedTensor>> file : new TreeMap<>(files).entrySet()) {
      faultPoint.accept("before " + file.getKey());
      written.put(
          file.getKey(), Safetensors.write(tmp.resolve(file.getKey()), file.getValue(), METADATA));
    }
    faultPoint.accept("before " + PROGRESS);
    byte[] progressJson = StrictJson.pretty(progress);
    DurableFiles.writeNew(tmp.resolve(PROGRESS), progressJson);
    String sha256 = HexFormat.of().formatHex(Safetensors.sha256().digest(progressJson));
    written.put(PROGRESS, new Safetensors.Written(progressJson.length, sha256));
    faultPoint.accept("before " + MANIFEST);
    DurableFiles.writeNew(
        tmp.resolve(MANIFEST), StrictJson.pretty(Checkpoint.manifest(step, written)));
    faultPoint.accept("before syncing the folder");
    DurableFiles.syncFolder(tmp);
  }

  private void putInPlace(long step, Path tmp, Path target) throws IOException {
    Path replaced = folder.resolve(name(step) + REPLACED);
    if (DurableFiles.exists(target)) {
      faultPoint.accept("before the old one makes way");
      DurableFiles.rename(target, replaced);
      DurableFiles.syncFolder(folder);
    }
    faultPoint.accept("before the rename");
    DurableFiles.rename(tmp, target);
    faultPoint.accept("before syncing the parent");
    DurableFiles.syncFolder(folder);
    if (DurableFiles.exists(replaced)) {
      delete(replaced);
    }
  }

  /**
   * Points {@code best.json} to a checkpoint that exists. The metric is for the caller to compare
   * with; a caller that resumes has it in its progress, and marks again if a crash came between
   * save and mark.
   */
  public void markBest(long step, double metric) {
    requireWriter();
    if (!Double.isFinite(metric)) {
      throw new IllegalArgumentException("metric must be finite, got " + metric);
    }
    if (list().stream().noneMatch(saved -> saved.step() == step)) {
      throw new IllegalArgumentException("step " + step + " has no checkpoint in " + folder);
    }
    try {
      faultPoint.accept("before " + BEST);
      DurableFiles.replace(
          folder.resolve(BEST),
          StrictJson.pretty(StrictJson.newObject().put("step", step).put("metric", metric)));
      faultPoint.accept("after " + BEST);
    } catch (IOException | UncheckedIOException e) {
      throw failed("mark the best checkpoint in", e);
    }
  }

  /** Deletes all but the {@code keep >= 1} newest checkpoints and the best one. */
  public void prune(int keep) {
    requireWriter();
    if (keep < 1) {
      throw new IllegalArgumentException("keep must be >= 1, got " + keep);
    }
    long best = bestMark().map(BestMark::step).orElse(-1L);
    List<Saved> all = list();
    deleteAll(
        all.subList(0, Math.max(0, all.size() - keep)).stream()
            .filter(saved -> saved.step() != best)
            .toList());
  }

  /**
   * Deletes the checkpoints after a step, and {@code best.json} if it points to one of them: for a
   * run that goes on from an older checkpoint and will make them again. Otherwise {@link #prune}
   * would count them as the newest.
   */
  public void discardAfter(long step) {
    requireWriter();
    if (bestMark().map(BestMark::step).orElse(-1L) > step) {
      try {
        faultPoint.accept("before deleting " + BEST);
        Files.delete(folder.resolve(BEST));
        DurableFiles.syncFolder(folder);
      } catch (IOException | UncheckedIOException e) {
        throw failed("delete " + BEST + " in", e);
      }
    }
    deleteAll(list().stream().filter(saved -> saved.step() > step).toList());
  }

  private void deleteAll(List<Saved> checkpoints) {
    try {
      for (Saved saved : checkpoints) {
        delete(saved.folder());
      }
    } catch (IOException | UncheckedIOException e) {
      throw failed("delete a checkpoint in", e);
    }
  }

  private void delete(Path checkpoint) throws IOException {
    Matcher name = FOLDER_NAME.matcher(checkpoint.getFileName().toString());
    if (!name.matches()) {
      throw new IllegalArgumentException(checkpoint + " is not a checkpoint");
    }
    Path deleting = folder.resolve("step_" + name.group(1) + DELETING);
    DurableFiles.deleteTree(deleting);
    faultPoint.accept("before renaming to delete");
    DurableFiles.rename(checkpoint, deleting);
    DurableFiles.syncFolder(folder);
    faultPoint.accept("before deleting");
    for (Path file : DurableFiles.children(deleting)) {
      DurableFiles.deleteTree(file);
      faultPoint.accept("while deleting");
    }
    DurableFiles.deleteTree(deleting);
  }

  private void clearUp() throws IOException {
    for (Path path : children()) {
      String name = path.getFileName().toString();
      if (name.equals(BEST + DurableFiles.TMP)) {
        DurableFiles.deleteTree(path);
      }
      for (String suffix : List.of(DurableFiles.TMP, DELETING, REPLACED)) {
        if (name.endsWith(suffix)) {
          Matcher step = FOLDER_NAME.matcher(name.substring(0, name.length() - suffix.length()));
          if (step.matches() && step.group(2) == null) {
            clearUp(Long.parseLong(step.group(1)));
          }
        }
      }
    }
  }

  /** Brings one step to rest: complete under its name, or absent. */
  private void clearUp(long step) throws IOException {
    Path target = folder.resolve(name(step));
    Path replaced = folder.resolve(name(step) + REPLACED);
    if (DurableFiles.exists(replaced)) {
      faultPoint.accept("before clearing up");
      if (DurableFiles.exists(target)) {
        delete(replaced);
      } else {
        DurableFiles.rename(replaced, target);
        DurableFiles.syncFolder(folder);
      }
    }
    DurableFiles.deleteTree(folder.resolve(name(step) + DurableFiles.TMP));
    DurableFiles.deleteTree(folder.resolve(name(step) + DELETING));
  }

  private List<Path> children() throws IOException {
    return DurableFiles.children(folder);
  }

  private static String name(long step) {
    return String.format(Locale.ROOT, "step_%08d", step);
  }

  private void requireWriter() {
    if (!writer) {
      throw new IllegalStateException("this store was opened for reading: " + folder);
    }
  }

  private CheckpointException failed(String what, Exception e) {
    return new CheckpointException(
        "cannot "
            + what
            + " "
            + folder
            + ": "
            + e
            + " ("
            + DurableFiles.freeBytes(folder)
            + " bytes are free there); make room or correct the folder, then resume"
            + " from the newest checkpoint",
        e);
  }
}
