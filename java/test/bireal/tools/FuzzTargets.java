package bireal.tools;

import bireal.config.ConfigException;
import bireal.config.ConfigLoader;
import bireal.config.RunConfig;
import bireal.data.DataConfig;
import bireal.data.DataException;
import bireal.data.Datasets;
import bireal.data.Split;
import bireal.runtime.InputException;
import bireal.train.Checkpoint;
import bireal.train.CheckpointException;
import bireal.train.CheckpointStore;
import bireal.train.ReferenceCase;
import bireal.train.RunFolderException;
import bireal.train.RunLog;
import bireal.train.RunState;
import bireal.train.Safetensors;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;

/** Every kind of file that bireal reads, for {@link Fuzz}. */
final class FuzzTargets {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  private FuzzTargets() {}

  static List<Fuzz.Target> all() {
    return List.of(
        new Config(),
        new SetOption(),
        new Tensors(),
        new Manifest(),
        new Progress(),
        new Best(),
        new Log(),
        new Case(),
        new Idx("images", false),
        new Idx("labels", true),
        new Cifar());
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static JsonNode parse(byte[] json) {
    try {
      return MAPPER.readTree(json);
    } catch (IOException e) {
      throw new IllegalStateException("the valid file is no JSON", e);
    }
  }

  /** A JSON file: half of the inputs are damaged values, half damaged bytes of such. */
  private static byte[] json(JsonNode valid, Random random) {
    byte[] text = utf8(random.nextInt(8) == 0 ? valid.toString() : Mutation.json(valid, random));
    return random.nextBoolean() ? text : Mutation.bytes(text, Mutation.JSON_BYTES, random);
  }

  /** A config, which may extend another one. */
  private static class Config implements Fuzz.Target {
    private static final byte[] YAML_BYTES =
        ":- \n\t'\"#&*!|>%@`{}[],?=~.0123456789eE\\_".getBytes(StandardCharsets.US_ASCII);
    static final List<String> PIECES =
        List.of(
            "\n",
            " ",
            "  ",
            "\t",
            ":",
            ": ",
            "- ",
            "-",
            "[",
            "]",
            "{",
            "}",
            ",",
            "#",
            "'",
            "\"",
            "|",
            ">",
            "|2\n",
            "&a ",
            "*a",
            "!!str ",
            "!!java.lang.String ",
            "!t ",
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "%TAG ! x\n",
            "? ",
            "<<: ",
            "~",
            "null",
            "0x10",
            "1e9",
            "1_000",
            ".inf",
            "-1",
            "012",
            "9".repeat(30),
            "1e400",
            "-0.0",
            "true",
            "extends: ",
            "extends: base.yaml\n",
            "extends: config.yaml\n",
            "extends: .\n",
            "extends: empty.yaml\n",
            "extends: \"a\\0b\"\n",
            "extends: " + "x".repeat(300) + "\n",
            "\u0000",
            "\uFFFE",
            "\uFEFF",
            "\u0085",
            "\u001b[2J",
            "é",
            "\uD83D\uDE00",
            "@",
            "`",
            "=",
            ".",
            "_",
            "\r",
            "\u2028",
            "\\uD800",
            "\\x00",
            "\"\\U0010FFFF\"",
            "\"\\U00110000\"",
            "train: {batch: 3}\n",
            "seed: 9223372036854775808\n");
    Path file;
    private String valid;

    @Override
    public String name() {
      return "config";
    }

    @Override
    public Path prepare(Path folder) throws IOException {
      file = folder.resolve("config.yaml");
      valid = Files.readString(Path.of("configs/quickstart.yaml"));
      Files.writeString(folder.resolve("base.yaml"), valid);
      Files.writeString(folder.resolve("empty.yaml"), "");
      Files.writeString(file, valid);
      return file;
    }

    @Override
    public byte[] next(Random random) {
      if (random.nextInt(50) == 0) {
        return utf8(large(random));
      }
      StringBuilder text =
          new StringBuilder(random.nextInt(8) == 0 ? "extends: base.yaml\n" : valid);
      for (int edits = 1 + random.nextInt(4); edits > 0; edits--) {
        int from = random.nextInt(text.length() + 1);
        int to = Math.min(text.length(), from + random.nextInt(8));
        switch (random.nextInt(5)) {
          case 0 -> text.delete(from, to);
          case 1, 2 -> text.insert(from, PIECES.get(random.nextInt(PIECES.size())));
          case 3 -> text.replace(from, to, PIECES.get(random.nextInt(PIECES.size())));
          default -> text.insert(random.nextInt(text.length() + 1), text.substring(from, to));
        }
      }
      byte[] bytes = utf8(text.toString());
      return switch (random.nextInt(20)) {
        case 0 -> Mutation.bytes(bytes, YAML_BYTES, random);
        case 1 -> text.toString().getBytes(StandardCharsets.UTF_16);
        default -> bytes;
      };
    }

    /** What grows, nests or expands. */
    private static String large(Random random) {
      int many = 1 << (1 + random.nextInt(15));
      return switch (random.nextInt(12)) {
        case 0 -> "a: " + "[".repeat(many) + "]".repeat(random.nextBoolean() ? many : 0);
        case 1 -> "a: " + "{b: ".repeat(many) + "1" + "}".repeat(random.nextBoolean() ? many : 0);
        case 2 -> "- ".repeat(many);
        case 3 -> "? ".repeat(many);
        case 4 -> {
          StringBuilder laughs = new StringBuilder("a0: &a0 [x, x]\n");
          for (int i = 1; i < 40; i++) {
            laughs.append("a%d: &a%d [*a%d, *a%d]\n".formatted(i, i, i - 1, i - 1));
          }
          yield laughs.toString();
        }
        case 5 -> {
          StringBuilder keys = new StringBuilder();
          for (int i = 0; i < many; i++) {
            keys.append('k').append(random.nextInt(1 << 20)).append(": 1\n");
          }
          yield keys.toString();
        }
        case 6 -> "name: " + "x".repeat(20 * many);
        case 7 -> "name: \"" + "\\n".repeat(10 * many) + "\"";
        case 8 -> "name: '" + "\n".repeat(many) + "'";
        case 9 -> "data: {mean: [" + "0.5, ".repeat(many) + "0.5]}";
        case 10 -> "--- \n".repeat(many);
        default -> " ".repeat(random.nextInt(40 * many)) + "a: " + "#".repeat(many);
      };
    }

    @Override
    public void read() throws IOException {
      RunConfig config = ConfigLoader.load(file, List.of());
      // What is accepted can be written and read again.
      String resolved = ConfigLoader.resolvedYaml(config);
      Files.writeString(file, resolved);
      if (!ConfigLoader.load(file, List.of()).equals(config)) {
        throw new IllegalStateException("reads as another config once resolved:\n" + resolved);
      }
    }

    @Override
    public Class<? extends InputException> refusal() {
      return ConfigException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return (16L << 20) + 500 * fileBytes;
    }
  }

  /** The text of a {@code --set}, here in a file. */
  private static final class SetOption extends Config {
    private Path config;

    @Override
    public String name() {
      return "override";
    }

    @Override
    public Path prepare(Path folder) throws IOException {
      config = super.prepare(folder);
      file = folder.resolve("override");
      Files.writeString(file, "train.batch=256");
      return file;
    }

    @Override
    public byte[] next(Random random) {
      String[] values = {"256", "[0.5]", "{micro_batch: 8}", "", "x"};
      StringBuilder text =
          new StringBuilder(random.nextInt(4) > 0 ? "train.batch=" : "data={mean: [0.5]}");
      text.append(values[random.nextInt(values.length)]);
      for (int edits = random.nextInt(3); edits > 0; edits--) {
        text.insert(random.nextInt(text.length() + 1), PIECES.get(random.nextInt(PIECES.size())));
      }
      return utf8(text.toString());
    }

    @Override
    public void read() throws IOException {
      ConfigLoader.load(config, List.of(Files.readString(file)));
    }

    @Override
    public String place(Path folder) {
      return "--set ";
    }
  }

  private static byte[] tensors(byte[] header, byte[] data) {
    return tensors(header.length, header, data);
  }

  private static byte[] tensors(long headerBytes, byte[] header, byte[] data) {
    return ByteBuffer.allocate(Long.BYTES + header.length + data.length)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(headerBytes)
        .put(header)
        .put(data)
        .array();
  }

  /** Safetensors. */
  private static final class Tensors implements Fuzz.Target {
    private static final List<String> DTYPES =
        List.of("F32", "F64", "I64", "U8", "BOOL", "BF16", "F8_E4M3", "F31", "f32", "");
    private Path file;

    @Override
    public String name() {
      return "safetensors";
    }

    @Override
    public Path prepare(Path folder) throws IOException {
      file = folder.resolve("model.safetensors");
      Files.write(file, next(header(new Random(1), true), new Random(1), true));
      return file;
    }

    /** Some tensors; sound, or with sizes and offsets that overlap, leave holes or overflow. */
    private static ObjectNode header(Random random, boolean sound) {
      ObjectNode header = MAPPER.createObjectNode();
      header.putObject("__metadata__").put("format", "pt");
      long at = 0;
      int count = sound ? 4 : random.nextInt(6);
      for (int i = 0; i < count; i++) {
        ObjectNode tensor = header.putObject("layer" + i + ".weight");
        String dtype = sound ? "F32" : DTYPES.get(random.nextInt(DTYPES.size()));
        ArrayNode shape = tensor.put("dtype", dtype).putArray("shape");
        long elements = 1;
        for (int d = random.nextInt(random.nextInt(10) == 0 && !sound ? 40 : 4); d > 0; d--) {
          long size =
              random.nextInt(20) == 0 && !sound ? 1L << random.nextInt(63) : random.nextInt(4);
          shape.add(size);
          elements *= size;
        }
        long bytes = elements * (dtype.endsWith("64") ? 8 : dtype.endsWith("32") ? 4 : 1);
        long begin = at + (sound ? 0 : slip(random));
        long end = begin + bytes + (sound ? 0 : slip(random));
        tensor.putArray("data_offsets").add(begin).add(end);
        at = end;
      }
      return header;
    }

    private static long slip(Random random) {
      return switch (random.nextInt(30)) {
        case 0 -> random.nextInt(9) - 4;
        case 1 -> Long.MAX_VALUE - random.nextInt(4);
        case 2 -> -random.nextInt(1 << 20);
        case 3 -> 1L << random.nextInt(40);
        default -> 0;
      };
    }

    private static byte[] next(ObjectNode header, Random random, boolean sound) {
      long data = 0;
      for (JsonNode tensor : header) {
        data = Math.max(data, tensor.path("data_offsets").path(1).asLong());
      }
      int dataBytes = (int) Math.min(data, 10_000);
      byte[] text =
          sound || random.nextInt(3) > 0
              ? utf8(header.toString())
              : utf8(Mutation.json(header, random));
      if (sound || random.nextInt(6) > 0) {
        return tensors(text, new byte[dataBytes]);
      }
      long[] lengths = {
        0,
        -1,
        1,
        text.length - 1,
        text.length + 1,
        text.length + dataBytes,
        Long.MIN_VALUE,
        Long.MAX_VALUE,
        100_000_000,
        100_000_001,
        Integer.MAX_VALUE,
        random.nextLong()
      };
      return tensors(lengths[random.nextInt(lengths.length)], text, new byte[dataBytes]);
    }

    @Override
    public byte[] next(Random random) {
      boolean sound = random.nextInt(3) == 0;
      byte[] input = next(header(random, sound), random, sound);
      return random.nextBoolean() ? input : Mutation.bytes(input, Mutation.JSON_BYTES, random);
    }

    @Override
    public void read() {
      try (Safetensors in = Safetensors.open(file)) {
        in.metadata();
        for (String name : in.names()) {
          in.read(name);
        }
      }
    }

    @Override
    public Class<? extends InputException> refusal() {
      return CheckpointException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return (1L << 20) + 100 * fileBytes;
    }
  }

  /** A checkpoint folder, of which one file is damaged. */
  private abstract static class CheckpointFile implements Fuzz.Target {
    Path checkpoints;
    JsonNode valid;

    /** A small checkpoint of step 8, as training writes it. */
    @Override
    public Path prepare(Path folder) throws IOException {
      checkpoints = folder.resolve("checkpoints");
      Path checkpoint = Files.createDirectories(checkpoints.resolve("step_00000008"));
      byte[] model = Tensors.next(Tensors.header(new Random(1), true), new Random(1), true);
      Files.write(checkpoint.resolve("model.safetensors"), model);
      byte[] progress =
          utf8(
              """
              {"step": 8, "epoch": 1, "batch_in_epoch": 0, "seed": 0, "best_top1_percent": 31.25, "best_step": 8,
              "log_window": {"loss_sum": "0x0.0p0", "top1": 0, "top5": 0, "images": 0},
              "epoch_so_far": {"loss_sum": "0x1.8p3", "top1": 1, "top5": 2, "images": 8},
              "last_evaluation": {"loss_sum": "0x1.5fcdep5", "top1": 10, "top5": 32, "images": 32},
              "evaluation_due": false, "gradient_fallbacks": 0, "config": {"train.batch": "8", "seed": "0"}}
              """);
      Files.write(checkpoint.resolve("progress.json"), progress);
      Files.write(checkpoint.resolve("manifest.json"), manifest(model, progress));
      Files.writeString(checkpoints.resolve("best.json"), "{\"step\": 8, \"metric\": 31.25}\n");
      Path file = file(checkpoint);
      valid = parse(Files.readAllBytes(file));
      return file;
    }

    static byte[] manifest(byte[] model, byte[] progress) {
      ObjectNode manifest = MAPPER.createObjectNode().put("format_version", 1).put("step", 8);
      ObjectNode files = manifest.putObject("files");
      listed(files.putObject("model.safetensors"), model);
      listed(files.putObject("progress.json"), progress);
      return utf8(manifest.toString());
    }

    private static void listed(ObjectNode file, byte[] content) {
      try {
        byte[] sha256 = MessageDigest.getInstance("SHA-256").digest(content);
        file.put("bytes", content.length).put("sha256", HexFormat.of().formatHex(sha256));
      } catch (NoSuchAlgorithmException e) {
        throw new AssertionError("every Java platform has SHA-256", e);
      }
    }

    abstract Path file(Path checkpoint);

    @Override
    public byte[] next(Random random) throws IOException {
      return json(valid, random);
    }

    @Override
    public void read() throws IOException {
      Checkpoint checkpoint = CheckpointStore.open(checkpoints.resolve("step_00000008"));
      for (String name : checkpoint.tensorFiles()) {
        checkpoint.tensors(name).close();
      }
      RunState.of(checkpoint);
    }

    @Override
    public Class<? extends InputException> refusal() {
      return CheckpointException.class;
    }

    /** 1 MB pieces for the checksums. */
    @Override
    public long allocationLimit(long fileBytes) {
      return (8L << 20) + 500 * fileBytes;
    }
  }

  private static final class Manifest extends CheckpointFile {
    @Override
    public String name() {
      return "manifest";
    }

    @Override
    Path file(Path checkpoint) {
      return checkpoint.resolve("manifest.json");
    }
  }

  /** Its checksum in the manifest is right: what is damaged is damaged by hand. */
  private static final class Progress extends CheckpointFile {
    private byte[] model;
    private Path manifest;

    @Override
    public String name() {
      return "progress";
    }

    @Override
    Path file(Path checkpoint) {
      manifest = checkpoint.resolve("manifest.json");
      return checkpoint.resolve("progress.json");
    }

    @Override
    public void read() throws IOException {
      Path folder = manifest.getParent();
      if (model == null) {
        model = Files.readAllBytes(folder.resolve("model.safetensors"));
      }
      byte[] progress = Files.readAllBytes(folder.resolve("progress.json"));
      Mutation.rewrite(manifest, manifest(model, progress));
      super.read();
    }
  }

  private static final class Best extends CheckpointFile {
    @Override
    public String name() {
      return "best";
    }

    @Override
    Path file(Path checkpoint) {
      return checkpoints.resolve("best.json");
    }

    @Override
    public void read() {
      CheckpointStore.forReading(checkpoints).best();
    }
  }

  /** A run's log.jsonl, as a resume reads it. */
  private static final class Log implements Fuzz.Target {
    private static final String LINE =
        "{\"event\":\"train\",\"step\":%d,\"epoch\":0.5,\"loss\":1.25,\"top1\":50.0,\"grad_norm\":\"NaN\"}";
    private Path file;

    @Override
    public String name() {
      return "log";
    }

    @Override
    public Path prepare(Path folder) throws IOException {
      file = folder.resolve("log.jsonl");
      Files.writeString(file, LINE.formatted(1) + "\n");
      return file;
    }

    @Override
    public byte[] next(Random random) {
      StringBuilder text = new StringBuilder();
      for (int line = random.nextInt(8); line >= 0; line--) {
        String valid = LINE.formatted(random.nextInt(12));
        text.append(random.nextInt(12) > 0 ? valid : Mutation.json(parse(utf8(valid)), random));
        text.append(line > 0 || random.nextInt(3) > 0 ? "\n" : "");
      }
      byte[] bytes = utf8(text.toString());
      return random.nextInt(3) > 0 ? bytes : Mutation.bytes(bytes, Mutation.JSON_BYTES, random);
    }

    @Override
    public void read() {
      RunLog.open(file, 8).close();
    }

    @Override
    public Class<? extends InputException> refusal() {
      return RunFolderException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return (1L << 20) + 500 * fileBytes;
    }
  }

  /** A reference case: reading only, running it takes seconds. */
  private static final class Case implements Fuzz.Target {
    private Path file;
    private ObjectNode valid;

    @Override
    public String name() {
      return "case";
    }

    @Override
    public Path prepare(Path folder) throws IOException {
      file = folder.resolve("case.json");
      Path golden = Path.of("java/test-resources/golden/birealnet18-tail-bits.json");
      Files.copy(golden, file);
      valid = (ObjectNode) parse(Files.readAllBytes(golden));
      // Reading looks at the specification; the rest stays, but small.
      for (String figures : List.of("parameters", "evaluation")) {
        valid.putObject(figures);
      }
      ((ArrayNode) valid.get("steps")).forEach(step -> ((ObjectNode) step).remove("gradients"));
      return file;
    }

    @Override
    public byte[] next(Random random) {
      if (random.nextInt(4) == 0) {
        return json(valid, random);
      }
      ObjectNode damaged = valid.deepCopy();
      damaged.set(
          "spec",
          MAPPER
              .getNodeFactory()
              .rawValueNode(
                  new com.fasterxml.jackson.databind.util.RawValue(
                      Mutation.json(valid.get("spec"), random))));
      try {
        return MAPPER.writeValueAsBytes(damaged);
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public void read() {
      ReferenceCase.load(file).name();
    }

    /** Or of a network that is not built, which is one of these. */
    @Override
    public Class<? extends InputException> refusal() {
      return InputException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return (1L << 20) + 500 * fileBytes;
    }
  }

  private static DataConfig data(DataConfig.Kind kind, Path folder) {
    return new DataConfig(
        kind, folder.toString(), 32, 0, false, List.of(0.5), List.of(0.5), 1, 1, 1, 1, 1, 1, 2);
  }

  /** Gzipped IDX: the images of a pair of files, or the labels. */
  private static final class Idx implements Fuzz.Target {
    private static final int IMAGES = 3;
    private static final int IMAGE_BYTES = 28 * 28;
    private final String name;
    private final boolean ofLabels;
    private Path folder;

    Idx(String name, boolean ofLabels) {
      this.name = name;
      this.ofLabels = ofLabels;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public Path prepare(Path own) throws IOException {
      folder = own;
      Path images = own.resolve("t10k-images-idx3-ubyte.gz");
      Path labels = own.resolve("t10k-labels-idx1-ubyte.gz");
      Files.write(images, gzip(content(IMAGES, IMAGES, new Random(1), false), new Random(1), true));
      Files.write(labels, gzip(content(IMAGES, IMAGES, new Random(1), true), new Random(1), true));
      return ofLabels ? labels : images;
    }

    private static byte[] content(int promised, int held, Random random, boolean ofLabels) {
      int itemBytes = ofLabels ? 1 : IMAGE_BYTES;
      ByteBuffer file = ByteBuffer.allocate((ofLabels ? 8 : 16) + held * itemBytes);
      file.putInt(ofLabels ? 0x801 : 0x803).putInt(promised);
      if (!ofLabels) {
        file.putInt(28).putInt(28);
      }
      while (file.hasRemaining()) {
        file.put((byte) random.nextInt(ofLabels ? 10 : 256));
      }
      return file.array();
    }

    /** A gzip file with right CRC and length; unless sound, with any of its optional fields. */
    private static byte[] gzip(byte[] content, Random random, boolean sound) throws IOException {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      int flags = sound || random.nextInt(4) > 0 ? 0 : random.nextInt(256);
      out.write(new byte[] {0x1f, (byte) 0x8b, 8, (byte) flags, 0, 0, 0, 0, 0, 3});
      if ((flags & 4) != 0) {
        int extra = random.nextInt(100);
        out.write(extra & 0xff);
        out.write(random.nextInt(50) == 0 ? 0xff : 0);
        out.write(new byte[extra]);
      }
      for (int field = 8; field <= 16; field *= 2) {
        if ((flags & field) != 0) {
          out.write("x".repeat(random.nextInt(2000)).getBytes(StandardCharsets.US_ASCII));
          out.write(random.nextInt(20) == 0 ? 'x' : 0);
        }
      }
      if ((flags & 2) != 0) {
        CRC32 head = new CRC32();
        head.update(out.toByteArray());
        out.write((int) head.getValue() & 0xff);
        out.write((int) (head.getValue() >> 8) & 0xff);
      }
      Deflater deflater = new Deflater(random.nextInt(3) == 0 ? 0 : 6, true);
      // One buffer for all: under -Xcheck:jni each call of the deflater copies the whole content.
      int bufferBytes = content.length + 512;
      try (DeflaterOutputStream deflated = new DeflaterOutputStream(out, deflater, bufferBytes)) {
        deflated.write(content);
      } finally {
        deflater.end();
      }
      CRC32 crc = new CRC32();
      crc.update(content);
      out.write(
          ByteBuffer.allocate(8)
              .order(ByteOrder.LITTLE_ENDIAN)
              .putInt((int) crc.getValue())
              .putInt(content.length)
              .array());
      return out.toByteArray();
    }

    @Override
    public byte[] next(Random random) throws IOException {
      boolean sound = random.nextInt(4) == 0;
      int[] counts = {
        0, 1, IMAGES - 1, IMAGES + 1, 10_000, 10_001, Integer.MAX_VALUE, -1, random.nextInt()
      };
      int promised = random.nextInt(3) > 0 ? IMAGES : counts[random.nextInt(counts.length)];
      byte[] content;
      if (random.nextInt(100) == 0) { // a bomb: 2 MB of zeros in 2 KB
        content = new byte[2 << 20];
        byte[] head = content(promised, 0, random, ofLabels);
        System.arraycopy(head, 0, content, 0, head.length);
      } else {
        content = content(promised, sound ? IMAGES : random.nextInt(IMAGES + 2), random, ofLabels);
      }
      if (random.nextInt(4) == 0) {
        content[random.nextInt(Math.min(20, content.length))] ^= (byte) (1 << random.nextInt(8));
      }
      byte[] file = gzip(content, random, sound);
      return switch (random.nextInt(8)) {
        case 0, 1 -> Mutation.bytes(file, new byte[] {0, 1, -1, 0x1f, (byte) 0x8b, 8}, random);
        case 2 -> Mutation.splice(file, file.length, gzip(content, random, false)); // two members
        default -> file;
      };
    }

    @Override
    public void read() {
      Datasets.open(data(DataConfig.Kind.FASHION_MNIST, folder), Split.TEST, 0);
    }

    @Override
    public Class<? extends InputException> refusal() {
      return DataException.class;
    }

    /** The published images have 7.8 MB; what a gzip file cannot hold is not allocated. */
    @Override
    public long allocationLimit(long fileBytes) {
      return (1L << 20) + Math.min(10_000L * IMAGE_BYTES, 1032 * fileBytes) + 10 * fileBytes;
    }
  }

  /** CIFAR-10, binary version. */
  private static final class Cifar implements Fuzz.Target {
    private static final int RECORD_BYTES = 3073;
    private Path folder;

    @Override
    public String name() {
      return "cifar";
    }

    @Override
    public Path prepare(Path own) throws IOException {
      folder = own;
      Path file = own.resolve("test_batch.bin");
      Files.write(file, new byte[2 * RECORD_BYTES]);
      return file;
    }

    @Override
    public byte[] next(Random random) {
      int records = random.nextInt(4);
      int slip = random.nextInt(3) > 0 ? 0 : random.nextInt(5) - 2;
      byte[] file = new byte[Math.max(0, records * RECORD_BYTES + slip)];
      random.nextBytes(file);
      for (int i = 0; i < file.length; i += RECORD_BYTES) {
        file[i] = (byte) (random.nextInt(10) > 0 ? random.nextInt(10) : random.nextInt());
      }
      if (random.nextInt(5000) == 0) {
        return new byte[10_001 * RECORD_BYTES];
      }
      return random.nextInt(4) > 0 || file.length == 0
          ? file
          : Mutation.bytes(file, new byte[] {0, 9, 10, -1}, random);
    }

    @Override
    public void read() {
      Datasets.open(data(DataConfig.Kind.CIFAR10, folder), Split.TEST, 0);
    }

    @Override
    public Class<? extends InputException> refusal() {
      return DataException.class;
    }

    @Override
    public long allocationLimit(long fileBytes) {
      return (1L << 20) + 3 * fileBytes;
    }
  }
}
