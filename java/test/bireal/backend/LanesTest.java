package bireal.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.cpu.CpuBackend;
import bireal.tensor.DType;
import bireal.tensor.Shape;
import bireal.tensor.Tensor;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class LanesTest {
  @Test
  void eachPassRunsOnceAndLanesRunSideBySide() throws Exception {
    try (Lanes lanes = new Lanes(3)) {
      for (int passes : new int[] {0, 1, 2, 3, 10}) {
        AtomicIntegerArray ran = new AtomicIntegerArray(passes);
        Set<Integer> seen = ConcurrentHashMap.newKeySet();
        int together = Math.min(passes, 3);
        CountDownLatch all = new CountDownLatch(together); // or the test ends by its time limit
        lanes.run(
            passes,
            i -> {
              ran.incrementAndGet(i);
              seen.add(Lanes.current());
              all.countDown();
              try {
                all.await();
              } catch (InterruptedException e) {
                throw new IllegalStateException(e);
              }
            });
        for (int i = 0; i < passes; i++) {
          assertEquals(1, ran.get(i), "pass " + i + " of " + passes);
        }
        assertEquals(together, seen.size(), passes + " passes in " + seen);
        assertTrue(Set.of(0, 1, 2).containsAll(seen), seen.toString());
      }
      assertEquals(0, Lanes.current());
    }
  }

  @Test
  void whatAPassThrowsIsThrownWhenAllHaveEnded() throws Exception {
    try (Lanes lanes = new Lanes(2)) {
      for (int failing : new int[] {0, 1}) { // lane 0, and the other
        CountDownLatch both = new CountDownLatch(2);
        AtomicInteger ended = new AtomicInteger();
        IllegalStateException thrown =
            assertThrows(
                IllegalStateException.class,
                () ->
                    lanes.run(
                        100,
                        i -> {
                          both.countDown();
                          try {
                            both.await();
                            if (Lanes.current() == failing) {
                              throw new IllegalStateException("lane " + failing);
                            }
                            Thread.sleep(50);
                          } catch (InterruptedException e) {
                            throw new AssertionError(e);
                          }
                          ended.incrementAndGet();
                        }));
        assertEquals("lane " + failing, thrown.getMessage());
        assertEquals(1, ended.get(), "the other lane's pass has ended, and none began after it");
      }
      Thread.currentThread().interrupt(); // waits all the same, because memory is in use
      AtomicInteger ended = new AtomicInteger();
      lanes.run(
          2,
          i -> {
            if (Lanes.current() == 1) {
              long until = System.nanoTime() + 50_000_000;
              while (System.nanoTime() < until) {
                Thread.onSpinWait();
              }
            }
            ended.incrementAndGet();
          });
      assertEquals(2, ended.get());
      assertTrue(Thread.interrupted());
    }
  }

  @Test
  void anArenaHasAPlaceForEachLane() {
    try (Backend backend = CpuBackend.open(3);
        Arena arena = new Arena("test", 3);
        Lanes lanes = new Lanes(3)) {
      arena.reserve(Shape.of(1), DType.F32);
      Tensor tensor = arena.reserve(Shape.of(20), DType.F32);
      arena.allocate(backend);
      assertEquals(64 + 128, arena.bytes());
      assertEquals(3 * (64 + 128), arena.allBytes());
      Set<Long> addresses = ConcurrentHashMap.newKeySet();
      CountDownLatch all = new CountDownLatch(3);
      lanes.run(
          3,
          i -> {
            addresses.add(tensor.address() - Lanes.current() * arena.bytes());
            all.countDown();
            try {
              all.await();
            } catch (InterruptedException e) {
              throw new IllegalStateException(e);
            }
          });
      assertEquals(Set.of(tensor.address()), new TreeSet<>(addresses));
      backend.zero(tensor);
    }
  }

  @Test
  void theCpuHasLanesWhereThereAreImagesForAllThreads() {
    try (Backend backend = CpuBackend.open(3);
        Backend one = CpuBackend.open(1)) {
      assertSame(backend, backend.evaluation(2));
      Backend evaluation = backend.evaluation(3);
      assertEquals(3, evaluation.lanes());
      assertSame(evaluation, backend.evaluation(100));
      assertEquals(backend.description(), evaluation.description());
      assertEquals(1, backend.lanes());
      assertSame(one, one.evaluation(100));
    }
  }
}
