package bireal.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.Backend;
import bireal.backend.cpu.CpuBackend;
import bireal.backend.cpu.Isa;
import bireal.runtime.InputException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The reference cases: networks trained in float64 by an independent implementation. */
class GoldenTest {
  private static final Path CASES = Path.of("java/test-resources/golden");

  @TempDir Path folder;

  /** One of each family beside the case below; all of them: scripts/bireal verify, in test.sh. */
  @ParameterizedTest
  @ValueSource(strings = {"reactnet18-step1", "realnet18-clip", "xnornet18"})
  void aCaseOfEachFamilyPassesOnTheCpu(String name) {
    try (Backend backend = CpuBackend.open(2)) {
      assertPasses(ReferenceCase.load(CASES.resolve(name + ".json")).run(backend));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"SCALAR", "AVX2"})
  void tailBitsPassOnEveryInstructionSet(String isa) {
    try (Backend backend = CpuBackend.open(2, Isa.valueOf(isa))) {
      assertPasses(ReferenceCase.load(CASES.resolve("birealnet18-tail-bits.json")).run(backend));
    }
  }

  @Test
  void tailBitsPassOnTheReferenceBackend() {
    try (Backend backend = CpuBackend.reference()) {
      assertPasses(ReferenceCase.load(CASES.resolve("birealnet18-tail-bits.json")).run(backend));
    }
  }

  private static void assertPasses(ReferenceCase.Report report) {
    assertTrue(report.rows().size() > 300, "only " + report.rows().size() + " rows");
    assertEquals(List.of(), report.rows().stream().filter(row -> !row.passed()).toList());
    assertTrue(report.passed());
  }

  @Test
  void aWrongFigureIsNoticed() throws IOException {
    ObjectMapper json = new ObjectMapper();
    ObjectNode file =
        (ObjectNode) json.readTree(CASES.resolve("birealnet18-tail-bits.json").toFile());
    JsonNode gradient =
        file.path("steps").path(0).path("parameters_after").path("layer3.1.binary_conv.weights");
    ((ObjectNode) gradient)
        .put("probe", gradient.path("probe").asDouble() + 0.01 * gradient.path("norm").asDouble());
    Path changed = folder.resolve("changed.json");
    json.writeValue(changed.toFile(), file);
    try (Backend backend = CpuBackend.open(1)) {
      ReferenceCase.Report report = ReferenceCase.load(changed).run(backend);
      assertFalse(report.passed());
      assertEquals(
          List.of("after step 0 layer3.1.binary_conv.weights probe"),
          report.rows().stream()
              .filter(row -> !row.passed())
              .map(ReferenceCase.Row::what)
              .toList());
    }
  }

  @Test
  void aFileThatIsNoCaseIsRefusedWithItsName() throws IOException {
    Path file = Files.writeString(folder.resolve("no.json"), "{\"spec\": {\"model\": 3}}");
    InputException e = assertThrows(InputException.class, () -> ReferenceCase.load(file));
    assertTrue(
        e.getMessage().contains("no.json") && e.getMessage().contains("'model' must be an object"),
        e.getMessage());
    Path torn = Files.writeString(folder.resolve("torn.json"), "{\"spec\": ");
    assertTrue(
        assertThrows(InputException.class, () -> ReferenceCase.load(torn))
            .getMessage()
            .contains("torn.json"));
  }
}
