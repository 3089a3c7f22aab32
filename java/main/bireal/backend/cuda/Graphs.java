package bireal.backend.cuda;

import java.util.HashMap;
import java.util.IdentityHashMap;
import java.util.Map;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUstream;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.JCudaDriver;

/**
 * Work that is queued again and again as one CUDA graph: the first time it runs as it is, so that
 * whatever is made lazily is made; the second time its launches are recorded; from then on they are
 * replayed with one call.
 */
final class Graphs {
  /** Not recorded yet: {@code exec} is null. */
  private static final class Recorded {
    CUgraphExec exec;
    long launches;
  }

  private final CudaBackend owner;
  private final CUstream stream;
  private final boolean enabled;
  private final IdentityHashMap<Runnable, Map<Long, Recorded>> all = new IdentityHashMap<>();

  Graphs(CudaBackend owner, CUstream stream, boolean enabled) {
    this.owner = owner;
    this.stream = stream;
    this.enabled = enabled;
  }

  void replay(Runnable work, long key) {
    if (!enabled) {
      work.run();
      return;
    }
    Map<Long, Recorded> ofWork = all.computeIfAbsent(work, w -> new HashMap<>());
    Recorded recorded = ofWork.get(key);
    if (recorded == null) {
      ofWork.put(key, new Recorded());
      work.run();
      return;
    }
    if (recorded.exec == null) {
      record(recorded, work);
    }
    CUgraphExec exec = recorded.exec;
    owner.call("cuGraphLaunch", () -> JCudaDriver.cuGraphLaunch(exec, stream));
  }

  private void record(Recorded recorded, Runnable work) {
    CUgraph graph = new CUgraph();
    owner.call(
        "cuStreamBeginCapture",
        () ->
            JCudaDriver.cuStreamBeginCapture(
                stream, CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    try {
      work.run();
    } catch (RuntimeException | Error e) {
      try { // so that the stream is usable again
        JCudaDriver.cuStreamEndCapture(stream, graph);
      } catch (jcuda.CudaException ended) {
        e.addSuppressed(ended);
      }
      throw e;
    }
    owner.call("cuStreamEndCapture", () -> JCudaDriver.cuStreamEndCapture(stream, graph));
    long[] nodes = new long[1];
    owner.call("cuGraphGetNodes", () -> JCudaDriver.cuGraphGetNodes(graph, null, nodes));
    CUgraphExec exec = new CUgraphExec();
    owner.call("cuGraphInstantiate", () -> JCudaDriver.cuGraphInstantiate(exec, graph, 0));
    owner.call("cuGraphDestroy", () -> JCudaDriver.cuGraphDestroy(graph));
    recorded.exec = exec;
    recorded.launches = nodes[0];
  }

  /** Kernels, copies and fills of all that is recorded. */
  long launches() {
    return all.values().stream()
        .flatMap(ofWork -> ofWork.values().stream())
        .mapToLong(recorded -> recorded.launches)
        .sum();
  }

  /** Waits until nothing of it runs any more. */
  void forget(Runnable work) {
    Map<Long, Recorded> ofWork = all.remove(work);
    if (ofWork == null) {
      return;
    }
    owner.call("cuStreamSynchronize", () -> JCudaDriver.cuStreamSynchronize(stream));
    for (Recorded recorded : ofWork.values()) {
      if (recorded.exec != null) {
        owner.call("cuGraphExecDestroy", () -> JCudaDriver.cuGraphExecDestroy(recorded.exec));
      }
    }
  }

  void close() {
    for (Runnable work : all.keySet().toArray(new Runnable[0])) {
      forget(work);
    }
  }
}
