package bireal.optim;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.SgdForm;
import org.junit.jupiter.api.Test;

/** Learning rates against the published ones (networks.md 1A.6) and against the formula. */
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
        LrSchedule schedule = new LrSchedule(type, warmup);
        for (int step = 0; step < 21; step++) {
          double factor = schedule.at(step, 7, 3);
          assertTrue(factor >= 0 && factor <= 1, type + " " + warmup + " " + step + ": " + factor);
        }
      }
    }
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
