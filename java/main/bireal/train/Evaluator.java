package bireal.train;

import bireal.backend.Backend;
import bireal.backend.GradMode;
import bireal.data.BatchLoader;
import bireal.data.DataConfig;
import bireal.data.Dataset;
import bireal.data.Datasets;
import bireal.data.MicroBatch;
import bireal.nn.Network;
import bireal.nn.Pass;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.function.BooleanSupplier;

/**
 * Loss (plain cross-entropy, no smoothing) and accuracy of a network on the images of a dataset, in
 * evaluation mode.
 */
public final class Evaluator {
  private final Network network;
  private final Backend backend;
  private final Dataset dataset;
  private final DataConfig config;
  private final ImageInput input;
  private final Metrics micro = new Metrics();
  private final ByteBuffer scalars = ByteBuffer.allocateDirect(32).order(ByteOrder.LITTLE_ENDIAN);

  /**
   * Plans its buffers; before the network's memory is allocated. The dataset is shared, the network
   * not owned.
   */
  public Evaluator(Network network, Dataset dataset, DataConfig config) {
    this.network = network;
    this.backend = network.planner().backend();
    this.dataset = dataset;
    this.config = config;
    this.input =
        new ImageInput(network, Datasets.imageSpec(config, dataset), config.mean(), config.std());
  }

  /**
   * One pass over the dataset. {@code progress} hears of it, {@code stop} is asked after each
   * micro-batch: true ends the pass with null.
   */
  public Metrics run(Progress progress, BooleanSupplier stop) {
    int n = network.planner().maxImages();
    Metrics metrics = new Metrics();
    try (BatchLoader loader =
        new BatchLoader(
            dataset,
            config,
            Datasets.imageSpec(config, dataset),
            BatchLoader.Order.SEQUENTIAL,
            n,
            n,
            0,
            BatchLoader.Position.START)) {
      for (MicroBatch batch = loader.next(); batch != null; batch = loader.next()) {
        input.upload(batch);
        input.load();
        network.forward(batch.images(), Pass.EVALUATE);
        backend.softmaxXent(
            batch.images(),
            network.planner().step(),
            null,
            network.logits(),
            network.labels(),
            null,
            0,
            1,
            0,
            GradMode.OVERWRITE,
            network.planner().workspace());
        micro.read(backend, network.planner().step(), scalars);
        metrics.add(micro);
        progress.evaluating(metrics.images(), dataset.count());
        if (stop.getAsBoolean()) {
          return null;
        }
      }
    }
    return metrics;
  }
}
