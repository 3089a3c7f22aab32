package bireal.backend.cuda;

import jcuda.driver.CUstream;

/** A CUstream whose address our launchers take. */
final class Stream extends CUstream {
  long address() {
    return getNativePointer();
  }
}
