// control: what a test sets and asks of the stand-in CUDA libraries. Exported with C linkage by the stand-in libcuda.so.1, so a
// test finds it by dlsym; nothing of it exists in a real libcuda.so.1.
//
// Settings can also come from the environment, for whole processes: BIREAL_EMULATOR="seed=7,compute_capability=90,exit_status=99"
//
//   key                 default   meaning
//   seed                1         picks one of the legal orders in which streams run
//   reverse             0         1: blocks, warps and lanes of a kernel run in descending order
//   memory_limit        8 GiB     bytes of device memory
//   device_count        1         0: cuInit finds no device
//   compute_capability  80        75, 80, 86, 89, 90, 100 or 120
//   multiprocessors     0         of the device; 0: as many as a card of the capability has
//   driver_version      13000     as cuDriverGetVersion; decides which PTX versions load
//   cudnn_version       90501     as cudnnGetVersion
//   cublas_version      120600    as cublasGetVersion
//   fail_allocation     0         n: the n-th cuMemAlloc from now fails with CUDA_ERROR_OUT_OF_MEMORY
//   fail_launch         0         n: the n-th kernel or library call that runs from now fails with fail_launch_code
//   fail_launch_code    700       a CUresult; from then on every call returns it, as after a real fault
//   wrong_algorithm     -1        n: cuDNN's algorithm n adds 1 to every sum of an NHWC convolution, in all passes
//   list_status         0         a cudnnStatus_t: what Get and Find of cuDNN's algorithms return for NHWC;
//                                 from 10000 on, that much less, with a count of 99, as of a number that nobody wrote
//   exit_status         0         not 0: a process that ends with findings ends with this status
//   trace               0         1: refused calls are printed with their reason
//   count_lines         0         1: records hold counters by source line (bireal_emulator_record_text)
//   race_checks         1         0: conflicting accesses within a launch are not looked for; 1.5 times as fast
//   access_counters     1         0: records hold no sectors and no wavefronts
//
//   read only           live_bytes, peak_bytes, live_allocations, pinned_bytes, pending, findings, records, sticky
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BIREAL_EMULATOR_KERNEL = 0,
  BIREAL_EMULATOR_LIBRARY = 1,
  BIREAL_EMULATOR_COPY = 2,
  BIREAL_EMULATOR_MEMSET = 3,
  BIREAL_EMULATOR_HOST = 4
};

/// Traffic of one direction of global memory (emulator/ptx/interpreter.h, GlobalTraffic). Copies and library calls fill `bytes`
/// and `sectors_distinct` with what they must move at least: every operand once.
typedef struct bireal_emulator_traffic {
  uint64_t instructions, bytes, sectors_requested, sectors_ideal, sectors_distinct;
} bireal_emulator_traffic;

/// One kernel, library call, copy or memset, in the order in which they ran.
typedef struct bireal_emulator_record {
  char name[96];
  int32_t kind;    ///< BIREAL_EMULATOR_...
  int32_t replay;  ///< 1: ran as part of a graph
  uint64_t stream;
  uint32_t grid[3], block[3];
  uint32_t shared_bytes;         ///< static and dynamic
  uint32_t worst_bank_conflict;  ///< 1 = none
  uint64_t thread_instructions, warp_instructions;
  uint64_t by_class[17];  ///< thread instructions, order of ptx::InstructionClass
  bireal_emulator_traffic read, write;
  uint64_t shared_wavefronts, shared_wavefronts_ideal;
  uint64_t barriers, divergent_branches;
} bireal_emulator_record;

/// 0, or -1 for an unknown key or a value outside its range; bireal_emulator_last_error() says which are legal.
int bireal_emulator_set(const char* key, int64_t value);
/// A setting or one of the read-only keys; -1 for an unknown key.
int64_t bireal_emulator_get(const char* key);
/// Text of finding i (from 0), or null. Valid until the next clear or reset.
const char* bireal_emulator_finding(int64_t i);
/// Why the last refused call of this thread was refused; "" if none was.
const char* bireal_emulator_last_error(void);
/// Fills *record; 0, or -1 where there is no i-th record.
int bireal_emulator_get_record(int64_t i, bireal_emulator_record* record);
/// The counters of record i as a table with `top_lines` source lines, or null. Valid until the next call of this thread.
const char* bireal_emulator_record_text(int64_t i, int top_lines);
/// Forgets findings and records.
void bireal_emulator_clear(void);
/// Everything as after loading the library: all handles and memory gone, defaults and BIREAL_EMULATOR in force.
void bireal_emulator_reset(void);

#ifdef __cplusplus
}
#endif
