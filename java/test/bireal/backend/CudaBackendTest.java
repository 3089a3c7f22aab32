package bireal.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;

import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.Emulator;
import java.util.List;
import org.junit.jupiter.api.BeforeAll;

/** The CUDA backend on the emulator: nvcc's PTX, JCuda unchanged, stand-ins for the libraries. */
class CudaBackendTest extends BackendContract {
  @BeforeAll
  static void load() {
    Emulator.load();
  }

  @Override
  Backend open() {
    Emulator.reset();
    return CudaBackend.open(0);
  }

  @Override
  List<Gradient> gradients() {
    return List.of(Gradient.FP32);
  }

  @Override
  boolean addsInOrder() {
    return false;
  }

  @Override
  void closed() {
    assertEquals(List.of(), Emulator.findings());
    assertEquals(0, Emulator.get("live_bytes"), "device memory that nobody freed");
    assertEquals(0, Emulator.get("pinned_bytes"), "pinned memory that nobody freed");
  }
}
