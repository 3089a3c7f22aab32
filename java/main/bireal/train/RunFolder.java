package bireal.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/**
 * The folder of one run, locked against other processes and other users in this process until it is
 * closed. Owned by the command that trains; one thread. Reading a run needs no lock: {@link
 * CheckpointStore#forReading}.
 */
public final class RunFolder implements AutoCloseable {
  private static final String CONFIG = "config.yaml";
  private static final String ENV = "env.txt";
  private static final String LOG = "log.jsonl";
  private static final String CHECKPOINTS = "checkpoints";
  private static final String LOCK = ".lock";

  /**
   * Folders locked by this process. The system's lock belongs to the process and ends when any of
   * its descriptors of the file is closed, so a second open here must not touch the file.
   */
  private static final Set<Path> LOCKED = ConcurrentHashMap.newKeySet();

  private final Path folder;
  private final Path locked;
  private final FileChannel lock;

  private RunFolder(Path folder, Path locked, FileChannel lock) {
    this.folder = folder;
    this.locked = locked;
    this.lock = lock;
  }

  /**
   * Makes a new run with its resolved config; throws RunFolderException if the folder holds a run
   * already or is locked.
   */
  public static RunFolder create(Path folder, String config) {
    try {
      Files.createDirectories(folder);
      RunFolder run = locked(folder);
      try {
        for (String name : List.of(CONFIG, LOG, CHECKPOINTS)) {
          if (DurableFiles.exists(folder.resolve(name))) {
            throw new RunFolderException(
                folder
                    + " already holds a run (it has "
                    + name
                    + "); resume that run or choose another folder");
          }
        }
        run.writeConfig(config);
        return run;
      } catch (RuntimeException e) {
        run.close();
        throw e;
      }
    } catch (FileAlreadyExistsException e) {
      throw new RunFolderException(
          e.getMessage() + " is not a folder; choose another folder for the run", e);
    } catch (IOException e) {
      throw failed(folder, "create", e);
    }
  }

  /** Opens a run to go on with it; throws RunFolderException if there is none or it is locked. */
  public static RunFolder resume(Path folder) {
    if (!Files.isRegularFile(folder.resolve(CONFIG))) {
      throw new RunFolderException(
          folder + " holds no run (it has no " + CONFIG + "); correct the path or start a new run");
    }
    try {
      return locked(folder);
    } catch (IOException e) {
      throw failed(folder, "open", e);
    }
  }

  /** Whether there is a run to resume. */
  public static boolean holdsRun(Path folder) {
    return Files.isRegularFile(folder.resolve(CONFIG));
  }

  public Path folder() {
    return folder;
  }

  public Path checkpointFolder() {
    return folder.resolve(CHECKPOINTS);
  }

  /** Opens the run's checkpoints for writing, clearing up after a crash. */
  public CheckpointStore openCheckpoints() {
    return CheckpointStore.forWriting(checkpointFolder());
  }

  /** Opens the log to go on after a step, see {@link RunLog#open}; the caller closes it. */
  public RunLog openLog(long step) {
    return RunLog.open(folder.resolve(LOG), step);
  }

  /** The resolved config as it was written. */
  public String config() {
    try {
      return Files.readString(folder.resolve(CONFIG));
    } catch (IOException e) {
      throw failed(folder, "read " + CONFIG + " in", e);
    }
  }

  /** Replaces the config, in one step; for a run whose user changed it knowingly. */
  public void writeConfig(String config) {
    try {
      DurableFiles.replace(folder.resolve(CONFIG), config.getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw failed(folder, "write " + CONFIG + " in", e);
    }
  }

  /**
   * Adds a paragraph to {@code env.txt}: the step from which this process trains, what the JDK
   * knows of the machine, then the given lines (versions, commit, dirty flag, device). A resumed
   * run has one paragraph for each process.
   */
  public void appendEnvironment(long step, Map<String, String> given) {
    Map<String, String> lines = new LinkedHashMap<>();
    lines.put("from step", Long.toString(step));
    lines.put(
        "java", System.getProperty("java.version") + " " + System.getProperty("java.vm.name"));
    lines.put("os", System.getProperty("os.name") + " " + System.getProperty("os.version"));
    lines.put("arch", System.getProperty("os.arch"));
    lines.put("cpu", cpuModel());
    lines.put("threads", Integer.toString(Runtime.getRuntime().availableProcessors()));
    lines.putAll(given);
    StringBuilder text = new StringBuilder();
    lines.forEach(
        (key, value) -> text.append(oneLine(key)).append(": ").append(oneLine(value)).append('\n'));
    Path file = folder.resolve(ENV);
    try {
      String before = Files.exists(file) ? Files.readString(file) + "\n" : "";
      DurableFiles.replace(file, (before + text).getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw failed(folder, "write " + ENV + " in", e);
    }
  }

  /**
   * Takes back a run that never began, so that its name is free again: removes what {@link #create}
   * made. A folder with a checkpoint or a line in its log stays as it is.
   */
  public void discard() {
    try {
      Path log = folder.resolve(LOG);
      if (!CheckpointStore.forReading(checkpointFolder()).list().isEmpty()
          || (Files.exists(log) && Files.size(log) > 0)) {
        return;
      }
      for (String name : List.of(LOG, ENV, CONFIG, CHECKPOINTS, LOCK)) {
        Files.deleteIfExists(folder.resolve(name));
      }
      Files.delete(folder);
    } catch (DirectoryNotEmptyException e) {
      return; // somebody else's files: the caller has a better error to tell
    } catch (IOException e) {
      throw failed(folder, "take back", e);
    }
  }

  /** Releases the lock; the lock file stays, since another process may be opening it. */
  @Override
  public void close() {
    if (!lock.isOpen()) {
      return;
    }
    try {
      lock.close();
    } catch (IOException e) {
      throw failed(folder, "unlock", e);
    } finally {
      LOCKED.remove(locked);
    }
  }

  private static RunFolder locked(Path folder) throws IOException {
    Path key = folder.toRealPath();
    if (!LOCKED.add(key)) {
      throw inUse(folder, "this process, pid " + ProcessHandle.current().pid());
    }
    FileChannel channel = null;
    try {
      channel =
          FileChannel.open(
              folder.resolve(LOCK),
              StandardOpenOption.CREATE,
              StandardOpenOption.READ,
              StandardOpenOption.WRITE);
      FileLock lock = channel.tryLock();
      if (lock == null) {
        ByteBuffer holder = ByteBuffer.allocate(64);
        channel.read(holder, 0);
        String pid = StandardCharsets.UTF_8.decode(holder.flip()).toString();
        throw inUse(folder, "another process, " + CheckpointException.quote(pid.strip()));
      }
      channel.truncate(0);
      String pid = "pid " + ProcessHandle.current().pid() + "\n";
      channel.write(ByteBuffer.wrap(pid.getBytes(StandardCharsets.UTF_8)), 0);
      return new RunFolder(folder, key, channel);
    } catch (IOException | RuntimeException e) {
      LOCKED.remove(key);
      if (channel != null) {
        channel.close();
      }
      throw e;
    }
  }

  private static RunFolderException inUse(Path folder, String holder) {
    return new RunFolderException(
        folder + " is in use by " + holder + "; wait for it to end or choose another folder");
  }

  private static String cpuModel() {
    try (Stream<String> lines = Files.lines(Path.of("/proc/cpuinfo"))) {
      return lines
          .filter(line -> line.startsWith("model name"))
          .findFirst()
          .map(line -> line.substring(line.indexOf(':') + 1).strip())
          .orElse("unknown");
    } catch (IOException e) {
      return "unknown"; // not Linux: the architecture is in the line before
    }
  }

  private static String oneLine(String text) {
    return text.replaceAll("\\s+", " ").strip();
  }

  private static RunFolderException failed(Path folder, String verb, IOException e) {
    return new RunFolderException(
        "cannot "
            + verb
            + " "
            + folder
            + ": "
            + e
            + " ("
            + DurableFiles.freeBytes(folder)
            + " bytes are free there); correct the folder or its permissions, or make room",
        e);
  }
}
