package bireal;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.methods;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.Ops;
import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaModifier;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/**
 * The arrows between rooms (docs/decisions.md, "house"). Plain tests: ArchUnit's own runner can
 * silently run none.
 */
class ArchitectureTest {
  private static final JavaClasses CLASSES =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .importPackages("bireal");

  /** Room and the rooms that it may use, beside itself. */
  private static final Map<String, List<String>> ARROWS = new LinkedHashMap<>();

  static {
    ARROWS.put("tensor", List.of());
    ARROWS.put("runtime", List.of());
    ARROWS.put("backend", List.of("tensor", "runtime"));
    ARROWS.put("nn", List.of("backend", "tensor", "runtime"));
    ARROWS.put("optim", List.of("backend", "tensor", "runtime"));
    ARROWS.put("data", List.of("backend", "tensor", "runtime"));
    ARROWS.put("train", List.of("nn", "optim", "data", "backend", "tensor", "runtime"));
    ARROWS.put("config", List.of("train", "nn", "optim", "data", "backend", "tensor", "runtime"));
    ARROWS.put(
        "cli", List.of("config", "train", "nn", "optim", "data", "backend", "tensor", "runtime"));
  }

  @Test
  void everyRoomIsKnownAndHasClasses() {
    for (String room : ARROWS.keySet()) {
      assertTrue(CLASSES.stream().anyMatch(c -> room(c).equals(room)), "no class in room " + room);
    }
    for (JavaClass c : CLASSES) {
      assertTrue(ARROWS.containsKey(room(c)), c.getName() + " lies in no known room");
    }
  }

  @Test
  void arrowsPointDown() {
    ARROWS.forEach(
        (room, below) ->
            noClasses()
                .that(in(room))
                .should()
                .dependOnClassesThat(
                    DescribedPredicate.describe(
                        "lie in a room that is not below " + room,
                        c ->
                            c.getPackageName().startsWith("bireal")
                                && !room(c).equals(room)
                                && !below.contains(room(c))))
                .check(CLASSES));
  }

  @Test
  void onlyBackendsNamesAConcreteBackend() {
    noClasses()
        .that(
            DescribedPredicate.describe(
                "are not cli.Backends or a concrete backend",
                c -> !c.getName().equals("bireal.cli.Backends") && !concrete(c)))
        .should()
        .dependOnClassesThat(
            DescribedPredicate.describe("are a concrete backend", ArchitectureTest::concrete))
        .check(CLASSES);
  }

  @Test
  void nativeMethodsLieInTheirFourClasses() {
    methods()
        .that()
        .haveModifier(JavaModifier.NATIVE)
        .should()
        .beDeclaredInClassesThat()
        .haveNameMatching(
            "bireal\\.(backend\\.(cpu\\.(CpuOps|NativeMemory)|cuda\\.CudaOps)|runtime\\.NativeLibrary)")
        .check(CLASSES);
  }

  @Test
  void nativeMethodsAreStaticOrOpsOfTheInterface() {
    methods()
        .that()
        .haveModifier(JavaModifier.NATIVE)
        .and(
            DescribedPredicate.describe(
                "are no ops of backend.Ops",
                m ->
                    Arrays.stream(Ops.class.getMethods())
                        .noneMatch(op -> op.getName().equals(m.getName()))))
        .should()
        .beStatic()
        .check(CLASSES);
  }

  @Test
  void onlyTheCudaBackendKnowsJCuda() {
    noClasses()
        .that()
        .resideOutsideOfPackage("bireal.backend.cuda")
        .should()
        .dependOnClassesThat()
        .resideInAPackage("jcuda..")
        .check(CLASSES);
  }

  @Test
  void onlyConfigReadsYamlAndOnlyCliKnowsPicocli() {
    noClasses()
        .that(DescribedPredicate.not(in("config")))
        .should()
        .dependOnClassesThat()
        .resideInAPackage("org.yaml..")
        .check(CLASSES);
    noClasses()
        .that(DescribedPredicate.not(in("cli")))
        .should()
        .dependOnClassesThat()
        .resideInAnyPackage("picocli..", "me.tongfei..")
        .check(CLASSES);
    classes()
        .that(in("tensor"))
        .should()
        .onlyDependOnClassesThat()
        .resideInAnyPackage("bireal.tensor", "java..")
        .check(CLASSES);
  }

  private static boolean concrete(JavaClass c) {
    return c.getPackageName().startsWith("bireal.backend.");
  }

  private static DescribedPredicate<JavaClass> in(String room) {
    return DescribedPredicate.describe("lie in " + room, c -> room(c).equals(room));
  }

  private static String room(JavaClass c) {
    String[] parts = c.getPackageName().split("\\.", -1);
    return parts.length > 1 ? parts[1] : "";
  }
}
