package bireal.train;

import bireal.data.DataConfig;
import bireal.nn.NetworkConfig;
import bireal.optim.LrSchedule;
import bireal.optim.OptimizerConfig;
import java.util.Optional;

/**
 * One stage of a run: a network, where its weights come from, and how it is trained.
 *
 * @param name in the log, in checkpoints and on the screen; empty where a run is one stage
 */
public record Stage(
    String name,
    StartConfig start,
    NetworkConfig model,
    Optional<TeacherConfig> teacher,
    DataConfig data,
    OptimizerConfig optimizer,
    LrSchedule schedule,
    TrainConfig train) {}
