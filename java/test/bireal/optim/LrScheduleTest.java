package bireal.optim;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;

class LrScheduleTest {
  @Test
  void publishedScheduleHasThePublishedRates() {
    // networks.md 1A.6: E = 256, lr0 = 1e-3, 2503 steps an epoch.
    LrSchedule schedule = new LrSchedule(LrSchedule.Type.LINEAR_PUBLISHED, 0);
    double[][] epochsAndRates = {
      {0, 0.00099609375},
      {1, 0.0009921875},
      {127, 0.0005},
      {253, 7.8125e-6},
      {254, 3.90625e-6},
      {255, 0}
    };
    for (double[] row : epochsAndRates) {
      long first = ((long) row[0]) * 2503;
      assertEquals(row[1], 1e-3 * schedule.at(first, 2503, 256), 1e-18);
      assertEquals(row[1], 1e-3 * schedule.at(first + 2502, 2503, 256), 1e-18);
    }
  }

  @Test
  void linearGoesFromTheFullRateTowardsZeroStepByStep() {
    LrSchedule schedule = new LrSchedule(LrSchedule.Type.LINEAR, 0);
    assertEquals(1, schedule.at(0, 10, 2));
    assertEquals(0.5, schedule.at(10, 10, 2));
    assertEquals(0.05, schedule.at(19, 10, 2), 1e-15);
  }

  @Test
  void warmUpRisesToTheScheduleItself() {
    LrSchedule schedule = new LrSchedule(LrSchedule.Type.CONSTANT, 4);
    assertEquals(0.25, schedule.at(0, 10, 2));
    assertEquals(1, schedule.at(3, 10, 2));
    assertEquals(1, schedule.at(4, 10, 2));
    assertThrows(
        IllegalArgumentException.class, () -> new LrSchedule(LrSchedule.Type.CONSTANT, -1));
  }
}
