package bireal.backend;

import bireal.backend.cpu.CpuBackend;
import bireal.backend.cpu.Isa;

class ScalarBackendTest extends BackendContract {
  @Override
  Backend open() {
    return CpuBackend.open(3, Isa.SCALAR);
  }
}
