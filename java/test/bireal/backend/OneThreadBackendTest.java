package bireal.backend;

import bireal.backend.cpu.CpuBackend;

class OneThreadBackendTest extends BackendContract {
  @Override
  Backend open() {
    return CpuBackend.open(1);
  }
}
