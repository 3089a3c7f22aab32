#include "cpu/onednn.h"

#include <dnnl_debug.h>
#include <omp.h>

#include <algorithm>

#include "core/error.h"

namespace bireal::cpu::onednn {

using dnnl::memory;
using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

void one_openmp_thread() { omp_set_num_threads(1); }

void raise(const char* op, const dnnl::error& e) {
  throw DeviceError(op, int(e.status), std::string(e.message) + ": " + dnnl_status2str(e.status), false);
}

static dnnl::engine make_engine() {
  dnnl::cpu_isa cap = dnnl::cpu_isa::isa_default;
  switch (default_isa()) {
    case Isa::kScalar: cap = dnnl::cpu_isa::sse41; break;  // the lowest that oneDNN's code generator knows
    case Isa::kAvx2: cap = dnnl::cpu_isa::avx2; break;
    case Isa::kAvx512:
    case Isa::kAvx512Vpopcntdq:
    case Isa::kAmx: break;
  }
  dnnl::status status = dnnl::set_max_cpu_isa(cap);
  if (status != dnnl::status::success)
    throw DeviceError("dnnl_set_max_cpu_isa", int(status), dnnl_status2str(dnnl_status_t(status)), false);
  return dnnl::engine(dnnl::engine::kind::cpu, 0);
}

const dnnl::engine& engine() {
  static const dnnl::engine instance = make_engine();
  return instance;
}

dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attr.set_fpmath_mode(dnnl::fpmath_mode::strict);
  return attr;
}

bool is_reference(const std::string& kernel_name) { return kernel_name.rfind("ref", 0) == 0; }

Primitive::Primitive(const char* op, const dnnl::primitive& primitive, const Desc& scratchpad, const std::vector<Arg>& args,
                     int thread_count)
    : op_(op), primitive_(primitive), scratch_bytes_(aligned64(int64_t(scratchpad.get_size()))) {
  for (int i = 0; i < thread_count; ++i) {
    Worker worker;
    worker.stream = dnnl::stream(engine());
    for (const Arg& arg : args) worker.memories.push_back(dnnl::memory(arg.desc, engine(), DNNL_MEMORY_NONE));
    worker.memories.push_back(dnnl::memory(scratchpad, engine(), DNNL_MEMORY_NONE));
    for (size_t a = 0; a < args.size(); ++a) worker.args.push_back({args[a].index, worker.memories[a].get()});
    worker.args.push_back({DNNL_ARG_SCRATCHPAD, worker.memories.back().get()});
    workers_.push_back(std::move(worker));
  }
}

void Primitive::run(int worker, std::initializer_list<const void*> handles, void* scratch) const {
  // at(): a Context with more threads than the one that planned must not write past the array.
  const Worker& w = workers_.at(size_t(worker));
  auto check = [&](dnnl_status_t status) {
    if (status != dnnl_success) throw DeviceError(op_, int(status), dnnl_status2str(status), false);
  };
  if (handles.size() + 1 != w.args.size()) check(dnnl_invalid_arguments);
  size_t a = 0;
  for (const void* handle : handles) check(dnnl_memory_set_data_handle(w.args[a++].memory, const_cast<void*>(handle)));
  if (scratch_bytes_ > 0) check(dnnl_memory_set_data_handle(w.args[a].memory, scratch));
  // The C call, because the C++ one takes its arguments in a hash map.
  check(dnnl_primitive_execute(primitive_.get(), w.stream.get(), int(w.args.size()), w.args.data()));
  check(dnnl_stream_wait(w.stream.get()));
}

Primitive reorder(const char* op, const Desc& from, const Desc& to, int thread_count) {
  dnnl::reorder::primitive_desc pd(engine(), from, engine(), to, attributes());
  return Primitive(op, dnnl::reorder(pd), pd.scratchpad_desc(), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, thread_count);
}

namespace {

struct Candidate {
  dnnl::primitive primitive;
  std::string kernel_name;
  Desc x, w, y, scratchpad;
};

Candidate candidate(ConvPass pass, const Conv2dShape& s, int64_t images, Tag activations) {
  const auto f32 = memory::data_type::f32;
  const auto direct = dnnl::algorithm::convolution_direct;
  const memory::dims stride = {s.stride, s.stride}, pad = {s.pad, s.pad};
  const Desc x({images, s.C, s.H, s.W}, f32, activations);
  const Desc w({s.K, s.C, s.R, s.S}, f32, Tag::any);
  const Desc y({images, s.K, s.P(), s.Q()}, f32, activations);
  dnnl::convolution_forward::primitive_desc fwd(engine(), dnnl::prop_kind::forward_training, direct, x, w, y, stride, pad, pad,
                                                attributes());
  switch (pass) {
    case ConvPass::kFwd: {
      return {dnnl::convolution_forward(fwd), fwd.impl_info_str(), fwd.src_desc(), fwd.weights_desc(), fwd.dst_desc(),
              fwd.scratchpad_desc()};
    }
    case ConvPass::kBwdInput: {
      dnnl::convolution_backward_data::primitive_desc pd(engine(), direct, x, w, y, stride, pad, pad, fwd, attributes());
      return {dnnl::convolution_backward_data(pd),
              pd.impl_info_str(),
              pd.diff_src_desc(),
              pd.weights_desc(),
              pd.diff_dst_desc(),
              pd.scratchpad_desc()};
    }
    case ConvPass::kBwdWeight: break;
  }
  dnnl::convolution_backward_weights::primitive_desc pd(engine(), direct, x, w, y, stride, pad, pad, fwd, attributes());
  return {dnnl::convolution_backward_weights(pd),
          pd.impl_info_str(),
          pd.src_desc(),
          pd.diff_weights_desc(),
          pd.diff_dst_desc(),
          pd.scratchpad_desc()};
}

}  // namespace

SlicedConv::Kernel SlicedConv::make(int64_t images, int thread_count) const {
  // With SSE4.1 alone the matrix-multiply convolution sometimes wants NCHW, e.g. for 7x7 filters on 7x7 images; AVX2 and
  // AVX-512 took NHWC for all 2016 shapes tried.
  Candidate found = candidate(pass_, shape_, images, Tag::nhwc);
  if (is_reference(found.kernel_name)) found = candidate(pass_, shape_, images, Tag::any);
  require(!is_reference(found.kernel_name), std::string(op_) + ": oneDNN has only its reference implementation (" +
                                                found.kernel_name + ") for " + std::to_string(images) + " image(s) of " +
                                                shape_.text());
  const auto f32 = memory::data_type::f32;
  const Desc x({images, shape_.C, shape_.H, shape_.W}, f32, Tag::nhwc);
  const Desc w({shape_.K, shape_.C, shape_.R, shape_.S}, f32, Tag::ohwi);
  const Desc y({images, shape_.K, shape_.P(), shape_.Q()}, f32, Tag::nhwc);

  Kernel kernel;
  kernel.kernel_name = found.kernel_name;
  kernel.w_bytes = aligned64(int64_t(found.w.get_size()));
  auto bridge = [&](const Desc& from, const Desc& to) {
    if (from == to) return Primitive();
    Primitive p = reorder(op_, from, to, thread_count);
    kernel.scratch_bytes = std::max(kernel.scratch_bytes, p.scratch_bytes());
    return p;
  };
  switch (pass_) {
    case ConvPass::kFwd:
      kernel.conv = Primitive(op_, found.primitive, found.scratchpad,
                              {{DNNL_ARG_SRC, found.x}, {DNNL_ARG_WEIGHTS, found.w}, {DNNL_ARG_DST, found.y}}, thread_count);
      kernel.x_in = bridge(x, found.x);
      kernel.out = bridge(found.y, y);
      break;
    case ConvPass::kBwdInput:
      kernel.conv =
          Primitive(op_, found.primitive, found.scratchpad,
                    {{DNNL_ARG_DIFF_SRC, found.x}, {DNNL_ARG_WEIGHTS, found.w}, {DNNL_ARG_DIFF_DST, found.y}}, thread_count);
      kernel.y_in = bridge(y, found.y);
      kernel.out = bridge(found.x, x);
      break;
    case ConvPass::kBwdWeight:
      kernel.conv =
          Primitive(op_, found.primitive, found.scratchpad,
                    {{DNNL_ARG_SRC, found.x}, {DNNL_ARG_DIFF_WEIGHTS, found.w}, {DNNL_ARG_DIFF_DST, found.y}}, thread_count);
      kernel.x_in = bridge(x, found.x);
      kernel.y_in = bridge(y, found.y);
      break;
  }
  // Always a primitive of its own, also where the layouts agree: the copy costs a fraction of a percent of the convolution.
  kernel.weights =
      pass_ == ConvPass::kBwdWeight ? reorder(op_, found.w, w, thread_count) : reorder(op_, w, found.w, thread_count);
  kernel.scratch_bytes = std::max({kernel.scratch_bytes, kernel.weights.scratch_bytes(), kernel.conv.scratch_bytes()});
  if (found.x != x) kernel.x_bytes = aligned64(int64_t(found.x.get_size()));
  if (found.y != y) kernel.y_bytes = aligned64(int64_t(found.y.get_size()));
  kernel.scratch_bytes += kernel.x_bytes + kernel.y_bytes;
  return kernel;
}

SlicedConv::SlicedConv(const char* op, ConvPass pass, const Conv2dShape& shape, int thread_count)
    : op_(op), pass_(pass), shape_(shape), slices_(shape.N), thread_count_(thread_count) {
  planning(op, [&] {
    slice_ = make(slices_.images, thread_count);
    if (slices_.images > 1) single_ = make(1, thread_count);
  });
  scratch_bytes_ = std::max(slice_.scratch_bytes, single_.scratch_bytes);
  workspace_bytes_ = thread_count * scratch_bytes_;
  int64_t dense_bytes = aligned64(shape.K * shape.taps() * shape.C * int64_t(sizeof(float)));
  if (pass == ConvPass::kBwdWeight)  // a partial for each slice; sum and last image of the rest; the two sums as [K,R,S,C]
    workspace_bytes_ += slices_.full(shape.N) * slice_.w_bytes + 2 * single_.w_bytes + 2 * dense_bytes;
  else
    workspace_bytes_ += slice_.w_bytes + single_.w_bytes;
}

void SlicedConv::run_kernel(const Kernel& kernel, int worker, const float* x, const float* w, const float* y,
                            char* scratch) const {
  char *own_x = scratch, *own_y = own_x + kernel.x_bytes, *rest = own_y + kernel.y_bytes;
  if (kernel.x_in) kernel.x_in.run(worker, {x, own_x}, rest);
  if (kernel.y_in) kernel.y_in.run(worker, {y, own_y}, rest);
  const void* lib_x = kernel.x_bytes > 0 ? static_cast<const void*>(own_x) : x;
  const void* lib_y = kernel.y_bytes > 0 ? static_cast<const void*>(own_y) : y;
  kernel.conv.run(worker, {lib_x, w, lib_y}, rest);
  if (!kernel.out) return;
  if (pass_ == ConvPass::kFwd)
    kernel.out.run(worker, {own_y, y}, rest);
  else
    kernel.out.run(worker, {own_x, x}, rest);
}

void SlicedConv::run(Context& context, float* out, const float* in, const float* w, int64_t n, void* workspace) const {
  const int64_t full = slices_.full(n), rest = slices_.rest(n), m = slices_.images;
  char* slice_w = worker_scratch(workspace, thread_count_);
  char* single_w = slice_w + slice_.w_bytes;
  context.parallel(2, [&](int64_t task, int worker) {
    if (task == 0 && full > 0) slice_.weights.run(worker, {w, slice_w}, worker_scratch(workspace, worker));
    if (task == 1 && rest > 0) single_.weights.run(worker, {w, single_w}, worker_scratch(workspace, worker));
  });
  const int64_t x_count = shape_.input_count(1), y_count = shape_.output_count(1);
  const bool fwd = pass_ == ConvPass::kFwd;
  context.parallel(full + rest, [&](int64_t task, int worker) {
    const int64_t begin = task < full ? task * m : full * m + (task - full);
    const float* x = fwd ? in + begin * x_count : out + begin * x_count;
    const float* y = fwd ? out + begin * y_count : in + begin * y_count;
    run_kernel(task < full ? slice_ : single_, worker, x, reinterpret_cast<float*>(task < full ? slice_w : single_w), y,
               worker_scratch(workspace, worker));
  });
}

void SlicedConv::run_weight(Context& context, float* dw, XOfFn x_of, const void* f, const float* dy, int64_t n, GradMode mode,
                            void* workspace) const {
  const int64_t full = slices_.full(n), rest = slices_.rest(n), m = slices_.images;
  const int64_t y_count = shape_.output_count(1), w_count = shape_.K * shape_.taps() * shape_.C;
  char* slice_dw = worker_scratch(workspace, thread_count_);
  char* rest_dw = slice_dw + slices_.full(shape_.N) * slice_.w_bytes;
  char* image_dw = rest_dw + single_.w_bytes;
  float* dense = reinterpret_cast<float*>(image_dw + single_.w_bytes);
  float* dense_rest = dense + aligned64(w_count * int64_t(sizeof(float))) / int64_t(sizeof(float));

  // The rest is one task, its images added one after the other: fewer than a slice, and two buffers instead of up to m.
  context.parallel(full + (rest > 0), [&](int64_t task, int worker) {
    char* scratch = worker_scratch(workspace, worker);
    if (task < full) {
      const float* x = x_of(f, worker, task * m, m);
      run_kernel(slice_, worker, x, reinterpret_cast<float*>(slice_dw + task * slice_.w_bytes), dy + task * m * y_count, scratch);
      return;
    }
    for (int64_t image = full * m; image < n; ++image) {
      const bool first = image == full * m;
      float* own = reinterpret_cast<float*>(first ? rest_dw : image_dw);
      run_kernel(single_, worker, x_of(f, worker, image, 1), own, dy + image * y_count, scratch);
      float* sum = reinterpret_cast<float*>(rest_dw);
      if (!first)
        for (int64_t i = 0; i < single_.w_bytes / int64_t(sizeof(float)); ++i) sum[i] += own[i];
    }
  });

  const int64_t stride = slice_.w_bytes / int64_t(sizeof(float));
  float* slice_sum = reinterpret_cast<float*>(slice_dw);
  if (full > 1) add_partials(context, slice_sum, slice_sum, stride, full, stride);
  // In place where one sum is all there is.
  const bool direct = mode == GradMode::kOverwrite && (full == 0 || rest == 0);
  float* slice_out = direct ? dw : dense;
  float* rest_out = direct ? dw : full == 0 ? dense : dense_rest;
  context.parallel(2, [&](int64_t task, int worker) {
    if (task == 0 && full > 0) slice_.weights.run(worker, {slice_dw, slice_out}, worker_scratch(workspace, worker));
    if (task == 1 && rest > 0) single_.weights.run(worker, {rest_dw, rest_out}, worker_scratch(workspace, worker));
  });
  if (full > 0 && rest > 0) add_partials(context, dense, dense, dense_rest - dense, 2, w_count);
  if (!direct) store_gradient(context, dw, dense, w_count, mode);
}

void add_partials(Context& context, float* sum, const float* first, int64_t stride, int64_t count, int64_t element_count) {
  context.rows(element_count, (count + 1) * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    if (sum != first) std::copy(first + begin, first + end, sum + begin);
    for (int64_t part = 1; part < count; ++part) {
      const float* next = first + part * stride;
      for (int64_t i = begin; i < end; ++i) sum[i] += next[i];
    }
  });
}

void store_gradient(Context& context, float* out, const float* value, int64_t element_count, GradMode mode) {
  context.rows(element_count, 3 * int64_t(sizeof(float)), [&](int64_t begin, int64_t end) {
    if (mode == GradMode::kOverwrite)
      std::copy(value + begin, value + end, out + begin);
    else
      for (int64_t i = begin; i < end; ++i) out[i] += value[i];
  });
}

}  // namespace bireal::cpu::onednn
