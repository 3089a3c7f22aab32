package bireal.backend;

import bireal.backend.cuda.CudaBackend;
import bireal.backend.cuda.Emulator;

/** As {@link CudaBackendTest}, on a device without b1 tensor cores: the popcount kernels. */
class CudaTuringBackendTest extends CudaBackendTest {
  @Override
  Backend open() {
    Emulator.reset();
    Emulator.set("compute_capability", 75);
    return CudaBackend.open(0);
  }
}
