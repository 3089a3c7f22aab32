package bireal.cli;

import bireal.backend.Backend;
import bireal.backend.cpu.CpuBackend;
import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.CudaDevice;
import bireal.config.BackendKind;
import bireal.runtime.DeviceException;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;

/**
 * The one place that names concrete backends. What is asked for is opened, or an error says what is
 * missing.
 */
final class Backends {
  private Backends() {}

  /**
   * {@code device} and {@code cudaGraphs} count for CUDA only; {@code threads} 0: as many as there
   * are cores. The reference runs on one. AUTO says on stderr why there is no GPU.
   */
  static Backend open(BackendKind kind, int device, boolean cudaGraphs, int threads) {
    return switch (kind) {
      case CPU ->
          CpuBackend.open(threads == 0 ? Runtime.getRuntime().availableProcessors() : threads);
      case CUDA -> CudaBackend.open(device, cudaGraphs);
      case AUTO -> {
        String reason = noGpu();
        if (reason == null) {
          yield open(BackendKind.CUDA, device, cudaGraphs, threads);
        }
        System.err.println("backend auto: cpu, because there is no usable GPU: " + reason);
        yield open(BackendKind.CPU, device, cudaGraphs, threads);
      }
      case REFERENCE -> CpuBackend.reference();
    };
  }

  /** Versions, NVIDIA's files that were loaded, and a table of the GPUs; or what is missing. */
  static void printGpus(PrintWriter out) {
    try {
      CudaDevice.versions().forEach((what, version) -> out.println(what + " " + version));
      CudaDevice.libraries().forEach(file -> out.println("  " + file));
      out.println();
      Table table = new Table(2, "device", "name", "compute capability", "memory, MB", "kernels");
      List<CudaDevice> devices = CudaDevice.list();
      for (CudaDevice device : devices) {
        table.row(
            Integer.toString(device.ordinal()),
            device.name(),
            device.computeCapability(),
            String.format(Locale.ROOT, "%,.0f", device.memoryBytes() / 1048576.0),
            device.kernels());
      }
      table.print(out);
    } catch (DeviceException e) {
      out.println(e.getMessage());
    }
  }

  private static String noGpu() {
    try {
      return CudaDevice.list().isEmpty() ? "the driver sees none" : null;
    } catch (DeviceException e) {
      return e.getMessage()
          .replaceFirst("^backend cuda: (no usable GPU: )?", "")
          .replaceFirst(", or choose backend: cpu$", "");
    }
  }
}
