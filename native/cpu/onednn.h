// oneDNN for the CPU ops: float32 primitives that several threads run at once, and convolutions over slices of a batch.
//
// Every library call runs on one thread (Context workers set OpenMP to 1) over a slice of the images that depends on the
// plan's N and the run's n alone, so the thread count never changes a bit. All memory is the caller's; what is left are the
// few small objects that dnnl_primitive_execute makes for itself.
// A plan belongs to the Context it was made for (its thread count) and is run by one caller at a time.
// Included by _cpu.cpp and _bench.cpp files only: tests and JNI do not see dnnl.hpp.
#pragma once
#include <dnnl.hpp>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/shapes.h"
#include "cpu/context.h"

namespace bireal::cpu::onednn {

/// The CPU engine. The first call caps oneDNN at default_isa(), i.e. at BIREAL_ISA; the cap is process-wide and cannot be
/// moved once a primitive exists, so Context::isa() (which tests vary) governs our own kernels only.
const dnnl::engine& engine();

/// Attributes of every primitive: scratchpad from the caller, float32 arithmetic whatever the environment says.
dnnl::primitive_attr attributes();

/// True if oneDNN names the implementation "ref...": correct, but 100 to 1000 times too slow to train with.
bool is_reference(const std::string& kernel_name);

/// Calls body() with OpenMP at one thread; dnnl::error becomes DeviceError(op, status, message).
template <class Body>
auto planning(const char* op, const Body& body) -> decltype(body());

/// A primitive with memory objects and a stream for each worker.
class Primitive {
 public:
  struct Arg {
    int index;  // DNNL_ARG_...
    dnnl::memory::desc desc;
  };
  Primitive() = default;
  Primitive(const char* op, const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad, const std::vector<Arg>& args,
            int thread_count);
  explicit operator bool() const { return bool(primitive_); }
  int64_t scratch_bytes() const { return scratch_bytes_; }
  /// `handles` in the order of the constructor's args; inputs are not written. `scratch` has scratch_bytes(), 64-byte aligned.
  void run(int worker, std::initializer_list<const void*> handles, void* scratch) const;

 private:
  struct Worker {
    dnnl::stream stream;
    std::vector<dnnl::memory> memories;
    std::vector<dnnl_exec_arg_t> args;
  };
  const char* op_ = "";  // a literal
  dnnl::primitive primitive_;
  int64_t scratch_bytes_ = 0;
  std::vector<Worker> workers_;
};

Primitive reorder(const char* op, const dnnl::memory::desc& from, const dnnl::memory::desc& to, int thread_count);

/// Rounded up to what workspace parts are aligned to.
inline int64_t aligned64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/// A batch of n images in slices of `images` (1/16 of the plan's N), the rest image by image: any n in 1..N runs with two
/// primitives.
struct ImageSlices {
  int64_t images;
  explicit ImageSlices(int64_t N) : images((N + Context::kSlices - 1) / Context::kSlices) {}
  int64_t full(int64_t n) const { return n / images; }
  int64_t rest(int64_t n) const { return n % images; }
};

enum class ConvPass { kFwd, kBwdInput, kBwdWeight };

/// One pass of a float32 convolution. Activations are NHWC and weights [K,R,S,C] for the caller; the library chooses its own
/// weight layout, and its own activation layout where it has no real kernel for NHWC.
class SlicedConv {
 public:
  /// Throws InvalidArgument if only a reference implementation exists; the shape is already checked. `op` is a literal.
  SlicedConv(const char* op, ConvPass pass, const Conv2dShape& shape, int thread_count);
  /// What runs on full slices, e.g. "brg_conv_fwd:avx512_core".
  const std::string& kernel_name() const { return slice_.kernel_name; }
  int64_t workspace_bytes() const { return workspace_bytes_; }

  /// kFwd: out y, in x.  kBwdInput: out dx, in dy.
  void run(Context& context, float* out, const float* in, const float* w, int64_t n, void* workspace) const;

  /// kBwdWeight. x_of(worker, begin, count) returns images [begin, begin + count) of x as floats in NHWC; it is called inside
  /// tasks, so it may unpack into a buffer of the worker, good until that worker's next call.
  template <class XOf>
  void run_weight(Context& context, float* dw, const XOf& x_of, const float* dy, int64_t n, GradMode mode,
                  void* workspace) const {
    run_weight(
        context, dw,
        [](const void* f, int worker, int64_t begin, int64_t count) {
          return (*static_cast<const XOf*>(f))(worker, begin, count);
        },
        &x_of, dy, n, mode, workspace);
  }
  /// The most images that x_of is asked for at once.
  int64_t slice_images() const { return slices_.images; }

 private:
  using XOfFn = const float* (*)(const void* f, int worker, int64_t begin, int64_t count);
  void run_weight(Context& context, float* dw, XOfFn x_of, const void* f, const float* dy, int64_t n, GradMode mode,
                  void* workspace) const;

  // The convolution of a fixed count of images, with the reorders around it (empty where the layouts agree).
  struct Kernel {
    std::string kernel_name;
    Primitive conv, x_in, y_in, out, weights;
    int64_t x_bytes = 0, y_bytes = 0, w_bytes = 0;  // in the library's layouts, rounded up to 64; activations 0 if NHWC
    int64_t scratch_bytes = 0;                      // of one worker
  };
  Kernel make(int64_t images, int thread_count) const;
  void run_kernel(const Kernel& kernel, int worker, const float* x, const float* w, const float* y, char* scratch) const;
  char* worker_scratch(void* workspace, int worker) const { return static_cast<char*>(workspace) + worker * scratch_bytes_; }

  const char* op_;
  ConvPass pass_;
  Conv2dShape shape_;
  ImageSlices slices_;
  int thread_count_;
  Kernel slice_, single_;  // slices_.images images; 1 image (empty where a slice is 1 image)
  int64_t scratch_bytes_ = 0, workspace_bytes_ = 0;
};

/// sum[i] = first[i] + first[stride + i] + ... over `count` partials, in that order, where sum may be first; parallel over i.
void add_partials(Context& context, float* sum, const float* first, int64_t stride, int64_t count, int64_t element_count);

/// Ends a gradient: out = value, or out += value, each element once.
void store_gradient(Context& context, float* out, const float* value, int64_t element_count, GradMode mode);

// Implementation of the template.
void one_openmp_thread();
[[noreturn]] void raise(const char* op, const dnnl::error& e);

template <class Body>
auto planning(const char* op, const Body& body) -> decltype(body()) {
  one_openmp_thread();
  try {
    return body();
  } catch (const dnnl::error& e) {
    raise(op, e);
  }
}

}  // namespace bireal::cpu::onednn
