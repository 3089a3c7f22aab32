package bireal.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ImageSpec;
import bireal.data.BatchLoader.Order;
import bireal.data.BatchLoader.Position;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class BatchLoaderTest {
  private static final int COUNT = 23;
  private static final int CROP_PADDING = 2;
  private static final long SEED = 11;

  /** One image as the loader handed it out. */
  private record Image(int label, int top, int left, int flip, List<Byte> pixels) {
    /** Of a FakeDataset with less than 51 images. */
    int index() {
      return Byte.toUnsignedInt(pixels.get(0)) / 5;
    }
  }

  /** A micro-batch, copied out of its slot. */
  private record Copy(
      long step, int epoch, int microIndex, int microCount, int batchImages, List<Image> images) {}

  private static Copy copy(MicroBatch micro) {
    int n = micro.images();
    for (ByteBuffer buffer : List.of(micro.pixels(), micro.labels(), micro.crops())) {
      assertTrue(buffer.isDirect());
      assertEquals(ByteOrder.LITTLE_ENDIAN, buffer.order());
      assertEquals(0, buffer.position());
    }
    assertEquals(n * 32, micro.pixels().limit());
    assertEquals(n * 4, micro.labels().limit());
    assertEquals(n * 12, micro.crops().limit());
    List<Image> images = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      List<Byte> pixels = new ArrayList<>();
      for (int p = 0; p < 32; p++) {
        pixels.add(micro.pixels().get(i * 32 + p));
      }
      images.add(
          new Image(
              micro.labels().getInt(i * 4),
              micro.crops().getInt(i * 12),
              micro.crops().getInt(i * 12 + 4),
              micro.crops().getInt(i * 12 + 8),
              pixels));
    }
    return new Copy(
        micro.step(),
        micro.epoch(),
        micro.microIndex(),
        micro.microCount(),
        micro.batchImages(),
        images);
  }

  private static BatchLoader loader(
      Dataset dataset, int threads, Order order, int batch, int microBatch, Position start) {
    return loader(dataset, threads, order, batch, microBatch, start, 20_000);
  }

  private static BatchLoader loader(
      Dataset dataset,
      int threads,
      Order order,
      int batch,
      int microBatch,
      Position start,
      long stallLimitMs) {
    DataConfig config = TestData.augmented(CROP_PADDING, true, threads, 2);
    ImageSpec spec = Datasets.imageSpec(config, dataset);
    return new BatchLoader(
        dataset, config, spec, order, batch, microBatch, SEED, start, stallLimitMs);
  }

  private static List<Copy> take(BatchLoader loader, int count) {
    List<Copy> copies = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      copies.add(copy(loader.next()));
    }
    return copies;
  }

  private static List<Copy> train(int threads, int batch, int microBatch, Position start, int n) {
    try (var loader =
        loader(new FakeDataset(COUNT), threads, Order.SHUFFLED, batch, microBatch, start)) {
      return take(loader, n);
    }
  }

  @Test
  void batchesAreTheSameForAnyNumberOfThreads() {
    List<Copy> one = train(1, 8, 3, Position.START, 40);
    assertEquals(one, train(2, 8, 3, Position.START, 40));
    assertEquals(one, train(5, 8, 3, Position.START, 40));
  }

  @Test
  void aLoaderStartedInTheMiddleContinuesAsIfUninterrupted() {
    // 23 images in batches of 8, 8, 7 and micro-batches of 3: 9 an epoch.
    List<Copy> whole = train(2, 8, 3, Position.START, 45);
    for (int step = 0; step < 12; step++) {
      Position start = Position.at(step, 3);
      assertEquals(new Position(step / 3, step % 3), start);
      assertEquals(whole.subList(step * 3, step * 3 + 9), train(2, 8, 3, start, 9));
    }
  }

  @Test
  void theLastBatchAndTheLastMicroBatchAreShort() {
    List<Copy> copies = train(2, 8, 3, Position.START, 18);
    int[] images = {3, 3, 2, 3, 3, 2, 3, 3, 1};
    for (int i = 0; i < copies.size(); i++) {
      Copy micro = copies.get(i);
      assertEquals(i / 3, micro.step());
      assertEquals(i / 9, micro.epoch());
      assertEquals(i % 3, micro.microIndex());
      assertEquals(3, micro.microCount());
      assertEquals(i % 9 < 6 ? 8 : 7, micro.batchImages());
      assertEquals(images[i % 9], micro.images().size());
    }
    // 23 = 20 + 3: the last batch has one micro-batch instead of four.
    List<Copy> tail = train(1, 20, 5, Position.START, 10);
    assertEquals(4, tail.get(0).microCount());
    assertEquals(1, tail.get(4).microCount());
    assertEquals(3, tail.get(4).batchImages());
    assertEquals(2, tail.get(5).step());
  }

  @Test
  void aBatchLargerThanTheDatasetIsOneShortBatch() {
    List<Copy> copies = train(2, 100, 50, Position.START, 3);
    for (int i = 0; i < 3; i++) {
      assertEquals(COUNT, copies.get(i).images().size());
      assertEquals(COUNT, copies.get(i).batchImages());
      assertEquals(1, copies.get(i).microCount());
      assertEquals(i, copies.get(i).epoch());
      assertEquals(i, copies.get(i).step());
    }
  }

  @Test
  void anEpochHoldsEachImageOnceWithItsLabel() {
    for (int microBatch : new int[] {1, 2, 3, 7, 8}) {
      int perEpoch = 2 * ((8 + microBatch - 1) / microBatch) + (7 + microBatch - 1) / microBatch;
      List<Copy> copies = train(2, 8, microBatch, Position.START, 2 * perEpoch);
      for (int epoch = 0; epoch < 2; epoch++) {
        boolean[] seen = new boolean[COUNT];
        for (Copy micro : copies.subList(epoch * perEpoch, (epoch + 1) * perEpoch)) {
          assertEquals(epoch, micro.epoch());
          for (Image image : micro.images()) {
            assertFalse(seen[image.index()]);
            seen[image.index()] = true;
            assertEquals(image.index() % 7, image.label());
            for (int p = 0; p < 32; p++) {
              assertEquals((byte) (image.index() * 5 + p), image.pixels().get(p));
            }
          }
        }
        for (boolean found : seen) {
          assertTrue(found);
        }
      }
    }
  }

  private static List<Image> epochImages(int batch, int microBatch, int epoch, long seed) {
    DataConfig config = TestData.augmented(CROP_PADDING, true, 2, 2);
    Dataset dataset = new FakeDataset(COUNT);
    List<Image> images = new ArrayList<>();
    try (var loader =
        new BatchLoader(
            dataset,
            config,
            Datasets.imageSpec(config, dataset),
            Order.SHUFFLED,
            batch,
            microBatch,
            seed,
            new Position(epoch, 0))) {
      while (images.size() < COUNT) {
        images.addAll(copy(loader.next()).images());
      }
    }
    return images;
  }

  @Test
  void theBatchSizeChangesNeitherOrderNorAugmentation() {
    List<Image> images = epochImages(8, 3, 4, SEED);
    assertEquals(images, epochImages(1, 1, 4, SEED));
    assertEquals(images, epochImages(23, 23, 4, SEED));
    assertEquals(images, epochImages(5, 2, 4, SEED));
  }

  @Test
  void orderAndAugmentationDependOnEpochAndSeed() {
    List<Image> images = epochImages(8, 8, 0, SEED);
    for (List<Image> other : List.of(epochImages(8, 8, 1, SEED), epochImages(8, 8, 0, SEED + 1))) {
      assertNotEquals(
          images.stream().map(Image::index).toList(), other.stream().map(Image::index).toList());
      Map<Integer, Image> byIndex = new HashMap<>();
      images.forEach(image -> byIndex.put(image.index(), image));
      long same = other.stream().filter(image -> image.equals(byIndex.get(image.index()))).count();
      // An image has 5 * 5 * 2 augmentations, so about one in two epochs repeats one of 23.
      assertTrue(same < 6, same + " of 23 have the same crop and flip");
    }
  }

  @Test
  void trainingCropsCoverTheirRangeAndHalfAreFlipped() {
    int[] tops = new int[2 * CROP_PADDING + 1];
    int[] lefts = new int[2 * CROP_PADDING + 1];
    int flips = 0;
    for (Copy micro : train(2, 23, 23, Position.START, 100)) {
      for (Image image : micro.images()) {
        tops[image.top()]++;
        lefts[image.left()]++;
        assertTrue(image.flip() == 0 || image.flip() == 1);
        flips += image.flip();
      }
    }
    // 2300 images: 460 of each offset with a deviation of 19, 1150 flips with one of 24.
    for (int offset = 0; offset < tops.length; offset++) {
      assertEquals(460, tops[offset], 95);
      assertEquals(460, lefts[offset], 95);
    }
    assertEquals(1150, flips, 120);
  }

  @Test
  void withoutCropPaddingAndFlipTrainingImagesStayAsTheyAre() {
    DataConfig config = TestData.augmented(0, false, 1, 1);
    Dataset dataset = new FakeDataset(COUNT);
    ImageSpec spec = Datasets.imageSpec(config, dataset);
    try (var loader =
        new BatchLoader(dataset, config, spec, Order.SHUFFLED, 23, 23, SEED, Position.START)) {
      for (Image image : copy(loader.next()).images()) {
        assertEquals(0, image.top());
        assertEquals(0, image.left());
        assertEquals(0, image.flip());
      }
    }
  }

  @Test
  void anEvaluationIsOnePassInOrderWithCentreCrops() {
    for (int threads : new int[] {1, 2, 5}) {
      try (var loader =
          loader(new FakeDataset(COUNT), threads, Order.SEQUENTIAL, 8, 3, Position.START)) {
        assertEquals(3, loader.stepsPerEpoch());
        int index = 0;
        for (Copy micro : take(loader, 9)) {
          for (Image image : micro.images()) {
            assertEquals(index++, image.index());
            assertEquals(CROP_PADDING, image.top());
            assertEquals(CROP_PADDING, image.left());
            assertEquals(0, image.flip());
          }
        }
        assertEquals(COUNT, index);
        assertNull(loader.next());
        assertNull(loader.next());
      }
    }
  }

  @Test
  void aLentSlotIsNotOverwrittenUntilItGoesBack() throws InterruptedException {
    try (var loader = loader(new FakeDataset(COUNT), 3, Order.SHUFFLED, 8, 3, Position.START)) {
      MicroBatch micro = loader.next();
      Copy before = copy(micro);
      // Time for the threads to fill the whole ring.
      Thread.sleep(50);
      assertEquals(before, copy(micro));
      micro.release();
      micro.release();
      MicroBatch following = loader.next();
      // The first one is no longer lent, so this must not free the second.
      micro.release();
      Copy second = copy(following);
      Thread.sleep(50);
      assertEquals(second, copy(following));
    }
  }

  @Test
  void slotsAreReused() {
    try (var loader = loader(new FakeDataset(COUNT), 2, Order.SHUFFLED, 8, 8, Position.START)) {
      MicroBatch first = loader.next();
      loader.next();
      loader.next();
      // Two batches ahead and the one lent.
      assertSame(first, loader.next());
    }
  }

  /** Fails at one image. */
  private static FakeDataset failingAt(int badIndex, Throwable failure) {
    return new FakeDataset(COUNT) {
      @Override
      public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
        if (index == badIndex) {
          if (failure instanceof Error error) {
            throw error;
          }
          throw (RuntimeException) failure;
        }
        super.copyPixels(index, target, offsetBytes);
      }
    };
  }

  @Test
  void anExceptionReachesNextAfterTheBatchesBeforeIt() {
    for (int threads : new int[] {1, 2, 5}) {
      var failure = new IllegalStateException("bad sector");
      try (var loader =
          loader(failingAt(13, failure), threads, Order.SEQUENTIAL, 8, 3, Position.START)) {
        // 0-2 3-5 6-7 8-10, then 11-13.
        take(loader, 4);
        DataException error = assertThrows(DataException.class, loader::next);
        assertSame(failure, error.getCause());
        assertEquals(
            "loading image 13 of fake failed (epoch 0, step 1): "
                + "java.lang.IllegalStateException: bad sector",
            error.getMessage());
        // And it stays.
        assertSame(failure, assertThrows(DataException.class, loader::next).getCause());
      }
    }
  }

  @Test
  void anErrorReachesNext() {
    var failure = new OutOfMemoryError("made up");
    try (var loader = loader(failingAt(0, failure), 2, Order.SHUFFLED, 8, 3, Position.START)) {
      DataException error =
          assertThrows(
              DataException.class,
              () -> {
                for (int i = 0; i < 9; i++) {
                  loader.next();
                }
              });
      assertSame(failure, error.getCause());
    }
  }

  @Test
  void aLabelOutOfRangeReachesNext() {
    for (int label : new int[] {-1, 7}) {
      var dataset =
          new FakeDataset(COUNT) {
            @Override
            public int label(int index) {
              return label;
            }
          };
      try (var loader = loader(dataset, 2, Order.SHUFFLED, 8, 3, Position.START)) {
        DataException error = assertThrows(DataException.class, loader::next);
        assertTrue(
            error.getMessage().contains("label " + label + ", expected 0..6"), error.getMessage());
      }
    }
  }

  /** Does not return until released; interrupts end it only if it heeds them. */
  private static final class BlockingDataset extends FakeDataset {
    private final CountDownLatch entered = new CountDownLatch(1);
    private final CountDownLatch released = new CountDownLatch(1);
    private final boolean heedsInterrupts;

    BlockingDataset(boolean heedsInterrupts) {
      super(COUNT);
      this.heedsInterrupts = heedsInterrupts;
    }

    @Override
    public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
      entered.countDown();
      while (released.getCount() > 0) {
        try {
          released.await();
        } catch (InterruptedException e) {
          if (heedsInterrupts) {
            throw new IllegalStateException(e);
          }
        }
      }
    }
  }

  @Test
  void aDatasetThatDoesNotReturnEndsAsAStall() {
    var dataset = new BlockingDataset(true);
    try (var loader = loader(dataset, 2, Order.SEQUENTIAL, 8, 3, Position.START, 200)) {
      DataException error = assertThrows(DataException.class, loader::next);
      assertTrue(
          error.getMessage().startsWith("no image of fake for 0.2 s: bireal-loader-"),
          error.getMessage());
      assertTrue(error.getMessage().contains("does not return from image 0"), error.getMessage());
      // The cause shows where the thread hangs.
      boolean shown = false;
      for (StackTraceElement frame : error.getCause().getStackTrace()) {
        shown |= frame.getClassName().contains("BlockingDataset");
      }
      assertTrue(shown);
    }
  }

  @Test
  void aSlowDatasetIsNotAStall() {
    var dataset =
        new FakeDataset(COUNT) {
          @Override
          public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
            try {
              Thread.sleep(40);
            } catch (InterruptedException e) {
              throw new IllegalStateException(e);
            }
            super.copyPixels(index, target, offsetBytes);
          }
        };
    // 23 images take 920 ms, beyond the limit, but each takes 40.
    try (var loader = loader(dataset, 1, Order.SEQUENTIAL, 23, 23, Position.START, 700)) {
      assertEquals(23, loader.next().images());
    }
  }

  @Test
  void closeEndsThreadsThatWaitForSlots() throws InterruptedException {
    var loader = loader(new FakeDataset(COUNT), 3, Order.SHUFFLED, 8, 3, Position.START);
    loader.next();
    for (Thread thread : loader.threads()) {
      while (thread.getState() != Thread.State.WAITING) {
        Thread.sleep(1);
      }
    }
    loader.close();
    assertEnded(loader);
    assertThrows(IllegalStateException.class, loader::next);
    loader.close();
  }

  @Test
  void closeEndsThreadsThatAreInTheDataset() throws InterruptedException {
    var dataset = new BlockingDataset(true);
    var loader = loader(dataset, 2, Order.SHUFFLED, 8, 3, Position.START);
    dataset.entered.await();
    loader.close();
    assertEnded(loader);
  }

  @Test
  void closeNamesAThreadThatDoesNotEnd() throws InterruptedException {
    var dataset = new BlockingDataset(false);
    var loader = loader(dataset, 1, Order.SHUFFLED, 8, 3, Position.START, 200);
    dataset.entered.await();
    DataException error = assertThrows(DataException.class, loader::close);
    assertEquals("bireal-loader-0 did not end: it does not return from fake", error.getMessage());
    dataset.released.countDown();
    loader.close();
    assertEnded(loader);
  }

  private static void assertEnded(BatchLoader loader) {
    for (Thread thread : loader.threads()) {
      assertFalse(thread.isAlive());
    }
  }

  /** What next() throws when {@code disturb} happens to the thread that waits in it. */
  private static Throwable thrownByNext(BatchLoader loader, Consumer<Thread> disturb)
      throws InterruptedException {
    var thrown = new AtomicReference<Throwable>();
    var consumer =
        new Thread(
            () -> {
              try {
                loader.next();
              } catch (RuntimeException e) {
                thrown.set(e);
              }
            });
    consumer.start();
    while (consumer.getState() != Thread.State.TIMED_WAITING) {
      Thread.sleep(1);
    }
    disturb.accept(consumer);
    consumer.join();
    return thrown.get();
  }

  @Test
  void closeWakesAConsumerThatWaits() throws InterruptedException {
    var loader = loader(new BlockingDataset(true), 1, Order.SHUFFLED, 8, 3, Position.START);
    Throwable thrown = thrownByNext(loader, consumer -> loader.close());
    assertInstanceOf(IllegalStateException.class, thrown);
    assertEquals("the loader of fake is closed", thrown.getMessage());
  }

  @Test
  void anInterruptEndsTheConsumersWait() throws InterruptedException {
    try (var loader = loader(new BlockingDataset(true), 1, Order.SHUFFLED, 8, 3, Position.START)) {
      Throwable thrown = thrownByNext(loader, Thread::interrupt);
      assertInstanceOf(DataException.class, thrown);
      assertInstanceOf(InterruptedException.class, thrown.getCause());
    }
  }

  @Test
  void aThreadInterruptedFromOutsideIsReported() throws InterruptedException {
    try (var loader = loader(new FakeDataset(COUNT), 1, Order.SHUFFLED, 8, 3, Position.START)) {
      Thread thread = loader.threads().get(0);
      while (thread.getState() != Thread.State.WAITING) {
        Thread.sleep(1);
      }
      thread.interrupt();
      thread.join();
      DataException error =
          assertThrows(
              DataException.class,
              () -> {
                for (int i = 0; i < 20; i++) {
                  assertNotNull(loader.next());
                }
              });
      assertInstanceOf(InterruptedException.class, error.getCause());
    }
  }

  @Test
  void wrongArgumentsAreRefused() {
    Dataset dataset = new FakeDataset(COUNT);
    for (int[] sizes : new int[][] {{0, 0}, {8, 0}, {8, 9}, {-1, 1}}) {
      assertThrows(
          IllegalArgumentException.class,
          () -> loader(dataset, 1, Order.SHUFFLED, sizes[0], sizes[1], Position.START));
    }
    IllegalArgumentException error =
        assertThrows(
            IllegalArgumentException.class,
            () -> loader(dataset, 1, Order.SHUFFLED, 8, 3, new Position(0, 3)));
    assertEquals(
        "cannot start at batch 3: an epoch has 3 (23 images, batch 8)", error.getMessage());
    assertThrows(IllegalArgumentException.class, () -> new Position(-1, 0));
    assertThrows(IllegalArgumentException.class, () -> new Position(0, -1));
    DataConfig config = TestData.augmented(0, false, 1, 1);
    for (ImageSpec spec :
        List.of(new ImageSpec(5, 4, 2, 4, 4, 0), new ImageSpec(4, 4, 2, 9, 9, 2))) {
      assertThrows(
          IllegalArgumentException.class,
          () -> new BatchLoader(dataset, config, spec, Order.SHUFFLED, 8, 3, SEED, Position.START));
    }
  }

  @Test
  void aStepAllocatesNothing() {
    var bean = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
    int steps = 2000;
    try (var loader = loader(new FakeDataset(1000), 2, Order.SHUFFLED, 8, 4, Position.START)) {
      for (int i = 0; i < steps; i++) {
        loader.next();
      }
      long[] workers = new long[2];
      for (int t = 0; t < 2; t++) {
        workers[t] = bean.getThreadAllocatedBytes(loader.threads().get(t).getId());
      }
      long before = bean.getCurrentThreadAllocatedBytes();
      for (int i = 0; i < steps; i++) {
        loader.next();
      }
      long after = bean.getCurrentThreadAllocatedBytes();
      assertTrue(before > 0);
      // Less than a byte per micro-batch: what the virtual machine does on the side.
      assertTrue(after - before < steps, "next() allocated " + (after - before));
      for (int t = 0; t < 2; t++) {
        long allocated = bean.getThreadAllocatedBytes(loader.threads().get(t).getId()) - workers[t];
        assertTrue(allocated < steps, "a loader thread allocated " + allocated);
      }
    }
  }
}
