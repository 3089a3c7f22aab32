package bireal.backend;

import bireal.backend.cpu.CpuBackend;

class ReferenceBackendTest extends BackendContract {
  @Override
  Backend open() {
    return CpuBackend.reference();
  }
}
