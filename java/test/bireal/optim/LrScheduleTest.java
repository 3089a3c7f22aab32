package bireal.optim;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.Backend;
import bireal.backend.SgdForm;
import bireal.backend.StepState;
import bireal.backend.Tensors;
import bireal.backend.UpdateSpec;
import bireal.backend.cpu.CpuBackend;
import bireal.tensor.Buffer;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;

/**
 * Learning rates against the published ones (networks.md 1A.6) and against the formula; optimizer
 * settings.
 */
class LrScheduleTest {
  /** ImageNet in batches of 512. */
  private static final long STEPS_PER_EPOCH = 2503;

  private static final int EPOCHS = 256;
  private static final double PUBLISHED_LR = 1e-3;

  private static double published(int epoch, long stepInEpoch) {
    return PUBLISHED_LR
        * new LrSchedule(LrSchedule.Type.LINEAR_PUBLISHED, 0)
            .at(epoch * STEPS_PER_EPOCH + stepInEpoch, STEPS_PER_EPOCH, EPOCHS);
  }

  @Test
  void publishedRatesAreRepeatedEpochByEpoch() {
    // The factors are multiples of 1/256, so only the multiplication by 1e-3 rounds.
    double ulp = Math.ulp(1e-3);
    for (long step : new long[] {0, 1, STEPS_PER_EPOCH - 1}) {
      assertEquals(0.00099609375, published(0, step), ulp);
      assertEquals(0.0009921875, published(1, step), ulp);
      assertEquals(0.0005, published(127, step), ulp);
      assertEquals(7.8125e-6, published(253, step), ulp);
      assertEquals(3.90625e-6, published(254, step), ulp);
      assertEquals(0.0, published(255, step), 0.0);
    }
  }

  @Test
  void linearFallsEachStepFromTheFullRateAndWouldReachZeroAfterTheLast() {
    LrSchedule linear = new LrSchedule(LrSchedule.Type.LINEAR, 0);
    assertEquals(1.0, linear.at(0, 5, 4), 0.0);
    assertEquals(0.5, linear.at(10, 5, 4), 0.0);
    assertEquals(1.0 / 20, linear.at(19, 5, 4), 1e-16);
    for (int step = 1; step < 20; step++) {
      assertEquals(1.0 / 20, linear.at(step - 1, 5, 4) - linear.at(step, 5, 4), 1e-15);
    }
  }

  @Test
  void linearKeepsItsPrecisionOverMoreStepsThanAnIntHolds() {
    LrSchedule linear = new LrSchedule(LrSchedule.Type.LINEAR, 0);
    long stepsPerEpoch = 100_000_000L;
    assertEquals(0.5, linear.at(50 * stepsPerEpoch, stepsPerEpoch, 100), 0.0);
    double last = linear.at(100 * stepsPerEpoch - 1, stepsPerEpoch, 100);
    assertTrue(last > 0 && last < 2e-10, "last factor " + last);
  }

  @Test
  void constantStaysAtTheFullRate() {
    LrSchedule constant = new LrSchedule(LrSchedule.Type.CONSTANT, 0);
    for (long step : new long[] {0, 1, 7, 19}) {
      assertEquals(1.0, constant.at(step, 5, 4), 0.0);
    }
  }

  @Test
  void warmUpRisesLinearlyToTheRateThatTheScheduleHasThen() {
    LrSchedule constant = new LrSchedule(LrSchedule.Type.CONSTANT, 4);
    double[] rising = {0.25, 0.5, 0.75, 1, 1, 1};
    for (int step = 0; step < rising.length; step++) {
      assertEquals(rising[step], constant.at(step, 5, 4), 0.0);
    }
    LrSchedule linear = new LrSchedule(LrSchedule.Type.LINEAR, 4);
    LrSchedule plain = new LrSchedule(LrSchedule.Type.LINEAR, 0);
    for (int step = 0; step < 20; step++) {
      assertEquals(
          plain.at(step, 5, 4) * Math.min(1, (step + 1) / 4.0), linear.at(step, 5, 4), 1e-16);
    }
  }

  @Test
  void warmUpLongerThanTheRunNeverReachesTheFullRate() {
    LrSchedule schedule = new LrSchedule(LrSchedule.Type.CONSTANT, 1000);
    assertEquals(0.02, schedule.at(19, 5, 4), 1e-16);
  }

  @Test
  void everyFactorLiesFromZeroToOne() {
    for (LrSchedule.Type type : LrSchedule.Type.values()) {
      for (int warmup : new int[] {0, 1, 3, 100}) {
        LrSchedule schedule =
            new LrSchedule(
                type,
                LrSchedule.Per.STEP,
                warmup,
                0,
                type == LrSchedule.Type.MULTI_STEP ? List.of(0.5, 2.0) : List.of(),
                0.1);
        for (int step = 0; step < 21; step++) {
          double factor = schedule.at(step, 7, 3);
          assertTrue(factor >= 0 && factor <= 1, type + " " + warmup + " " + step + ": " + factor);
        }
      }
    }
  }

  @Test
  void multiStepDropsAtTheFirstStepBehindEachMilestone() {
    // The published Caffe recipe: 20 epochs, a tenth at 10 and at 15.
    LrSchedule drops = multiStep(0, 10, 15);
    long epoch = 10_010;
    assertEquals(1.0, drops.at(0, epoch, 20), 0.0);
    assertEquals(1.0, drops.at(10 * epoch - 1, epoch, 20), 0.0);
    assertEquals(0.1, drops.at(10 * epoch, epoch, 20), 0.0);
    assertEquals(0.1, drops.at(15 * epoch - 1, epoch, 20), 0.0);
    assertEquals(0.01, drops.at(15 * epoch, epoch, 20), 1e-17);
    assertEquals(1.0, multiStep(0, 0.5).at(4, 10, 1), 0.0);
    assertEquals(0.1, multiStep(0, 0.5).at(5, 10, 1), 0.0);
  }

  @Test
  void cosineFallsFromOneOverAHalfTowardsZero() {
    LrSchedule cosine = new LrSchedule(LrSchedule.Type.COSINE, 0);
    assertEquals(1.0, cosine.at(0, 5, 4), 0.0);
    assertEquals(0.5 + Math.sqrt(0.125), cosine.at(5, 5, 4), 1e-15);
    assertEquals(0.5, cosine.at(10, 5, 4), 1e-15);
    assertEquals(0.5 - 0.5 * Math.cos(Math.PI / 20), cosine.at(19, 5, 4), 1e-15);
  }

  @Test
  void perEpochTheRateStaysWithinAnEpoch() {
    for (LrSchedule.Type type : List.of(LrSchedule.Type.LINEAR, LrSchedule.Type.COSINE)) {
      LrSchedule steps = new LrSchedule(type, 0);
      LrSchedule epochs = new LrSchedule(type, LrSchedule.Per.EPOCH, 0, 0, List.of(), 0.1);
      for (int step = 0; step < 20; step++) {
        assertEquals(steps.at(step / 5 * 5L, 5, 4), epochs.at(step, 5, 4), 1e-15);
      }
    }
  }

  @Test
  void warmUpIsGivenInStepsOrEpochsAndRisesPerStepOrPerEpoch() {
    LrSchedule step =
        new LrSchedule(LrSchedule.Type.CONSTANT, LrSchedule.Per.STEP, 0, 2, List.of(), 0.1);
    LrSchedule epoch =
        new LrSchedule(LrSchedule.Type.CONSTANT, LrSchedule.Per.EPOCH, 0, 2, List.of(), 0.1);
    for (int i = 0; i < 20; i++) {
      assertEquals(Math.min(1, (i + 1) / 10.0), step.at(i, 5, 4), 1e-16);
      assertEquals(Math.min(1, (i / 5 + 1) / 2.0), epoch.at(i, 5, 4), 1e-16);
    }
    assertEquals(0.5 * 0.1, multiStep(4, 0.2).at(1, 5, 4), 1e-17);
  }

  @Test
  void aScheduleLongerThanTheRunIsRefused() {
    multiStep(0, 3.5).requireFits(5, 4);
    new LrSchedule(LrSchedule.Type.LINEAR, 20).requireFits(5, 4);
    for (LrSchedule late :
        List.of(
            multiStep(0, 1, 4),
            new LrSchedule(LrSchedule.Type.LINEAR, 21),
            new LrSchedule(LrSchedule.Type.LINEAR, LrSchedule.Per.STEP, 0, 4.5, List.of(), 0.1))) {
      assertThrows(IllegalArgumentException.class, () -> late.requireFits(5, 4), late.toString());
    }
  }

  private static LrSchedule multiStep(int warmupSteps, double... milestones) {
    return new LrSchedule(
        LrSchedule.Type.MULTI_STEP,
        LrSchedule.Per.STEP,
        warmupSteps,
        0,
        Arrays.stream(milestones).boxed().toList(),
        0.1);
  }

  @Test
  void decayFollowsThePublishedGroups() {
    OptimizerConfig.Decayed bireal = OptimizerConfig.Decayed.FOUR_DIMENSIONAL;
    OptimizerConfig.Decayed react = OptimizerConfig.Decayed.FOUR_DIMENSIONAL_OR_CONV;
    assertTrue(bireal.includes("conv1.weight", 4) && react.includes("conv1.weight", 4));
    assertFalse(bireal.includes("layer1.0.binary_conv.weights", 2)); // flat: networks.md 1A.5
    assertTrue(react.includes("layer1.0.binary_conv.weights", 2));
    assertTrue(react.includes("layer1.0.move0.bias", 4));
    assertFalse(react.includes("layer1.0.prelu.weight", 1) || react.includes("fc.weight", 2));
    assertTrue(OptimizerConfig.Decayed.ALL.includes("fc.bias", 1));
  }

  /**
   * Gradient 1, momentum 0.9, rate 1/2, a tenth of it from step 3 on. Both forms are the same until
   * then; at the drop PyTorch's whole step shrinks, Caffe's buffer goes on with what it has (row
   * 17).
   */
  @Test
  void theFormsOfSgdPartWhereTheRateDrops() {
    LrSchedule drops = multiStep(0, 3);
    float[] pytorch = steps(SgdForm.PYTORCH, drops);
    float[] caffe = steps(SgdForm.CAFFE, drops);
    // b = 1, 1.9, 2.71, 3.439; the parameter moves by rate x b.
    for (float[] moved : List.of(pytorch, caffe)) {
      assertEquals(0.5, moved[0], 1e-6);
      assertEquals(0.95, moved[1], 1e-6);
      assertEquals(1.355, moved[2], 1e-6);
    }
    assertEquals(0.05 * 3.439, pytorch[3], 1e-6);
    assertEquals(0.9 * 1.355 + 0.05, caffe[3], 1e-6);
  }

  /** How far the parameter moves in each of four steps, an epoch being one. */
  private static float[] steps(SgdForm form, LrSchedule schedule) {
    OptimizerConfig config =
        new OptimizerConfig(
            OptimizerConfig.Type.SGD,
            0.5,
            1,
            0.9,
            0.999,
            1e-8,
            0.9,
            form,
            0,
            OptimizerConfig.Decayed.ALL);
    float[] moved = new float[4];
    try (Backend backend = CpuBackend.open(1);
        Buffer memory = backend.allocate(1024, "test")) {
      Tensor parameter = new Tensor(memory, 0, Shape.of(1), DType.F32);
      Tensor gradient = new Tensor(memory, 64, Shape.of(1), DType.F32);
      Tensor momentum = new Tensor(memory, 128, Shape.of(1), DType.F32);
      StepState state =
          new StepState(
              new Tensor(memory, 192, Shape.of(4), DType.F64),
              new Tensor(memory, 256, Shape.of(4), DType.F64));
      for (Tensor zero : List.of(parameter, momentum)) {
        backend.zero(zero);
      }
      Tensors.write(backend, gradient, new float[] {1});
      try (Optimizer optimizer =
          new Optimizer(
              backend,
              config,
              name -> momentum,
              new UpdateSpec(
                  parameter,
                  gradient,
                  List.of(new UpdateSpec.Segment(0, 1, 0)),
                  List.of(),
                  List.of(),
                  0.1))) {
        float before = 0;
        for (int step = 0; step < moved.length; step++) {
          double lr = config.lr() * schedule.at(step, 1, 4);
          Tensors.write(backend, state.state(), new double[] {lr, step + 1, 0, 0});
          optimizer.step(state, 1, new Tensor(memory, 320, Shape.of(64), DType.U8));
          float now = Tensors.floats(backend, parameter)[0];
          moved[step] = before - now;
          before = now;
        }
      }
    }
    return moved;
  }

  @Test
  void negativeWarmUpIsRefusedWithKeyAndValue() {
    assertEquals(
        "warmup_steps must be >= 0, got -1",
        assertThrows(
                IllegalArgumentException.class, () -> new LrSchedule(LrSchedule.Type.LINEAR, -1))
            .getMessage());
  }

  @Test
  void wrongOptimizerSettingsAreRefusedWithKeyAndValue() {
    assertRefused("lr must be in (0, 1000), got 0.0", 0, 1, 0.9, 0.999, 1e-8, 0.9, 0);
    assertRefused("lr must be in (0, 1000), got 1000.0", 1000, 1, 0.9, 0.999, 1e-8, 0.9, 0);
    assertRefused("lr must be in (0, 1000), got NaN", Double.NaN, 1, 0.9, 0.999, 1e-8, 0.9, 0);
    assertRefused("reference_batch must be >= 1, got 0", 1, 0, 0.9, 0.999, 1e-8, 0.9, 0);
    assertRefused("beta1 must be in [0, 1), got 1.0", 1, 1, 1, 0.999, 1e-8, 0.9, 0);
    assertRefused("beta2 must be in [0, 1), got -0.5", 1, 1, 0.9, -0.5, 1e-8, 0.9, 0);
    assertRefused("eps must be in (0, 1), got 0.0", 1, 1, 0.9, 0.999, 0, 0.9, 0);
    assertRefused("momentum must be in [0, 1), got 1.0", 1, 1, 0.9, 0.999, 1e-8, 1, 0);
    assertRefused("weight_decay must be in [0, 1), got NaN", 1, 1, 0.9, 0.9, 1e-8, 0, Double.NaN);
  }

  private static void assertRefused(
      String message,
      double lr,
      int referenceBatch,
      double beta1,
      double beta2,
      double eps,
      double momentum,
      double decay) {
    IllegalArgumentException e =
        assertThrows(
            IllegalArgumentException.class,
            () ->
                new OptimizerConfig(
                    OptimizerConfig.Type.ADAM,
                    lr,
                    referenceBatch,
                    beta1,
                    beta2,
                    eps,
                    momentum,
                    SgdForm.PYTORCH,
                    decay,
                    OptimizerConfig.Decayed.ALL));
    assertEquals(message, e.getMessage());
  }
}
