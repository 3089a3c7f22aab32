// cudnn: the stand-in libcudnn.so.9 (convolutions of the legacy API, 2-D, one group). Convolutions are queued on the handle's
// stream and computed in double when they run. The table of what is supported (`plan`) is narrower than the real library's
// wherever its documentation leaves room, so that a program which asks before it calls finds the hard cases here:
//
//   forward          IMPLICIT_GEMM, GEMM: NCHW only;  IMPLICIT_PRECOMP_GEMM: every layout, needs workspace;  others never
//   backward data    ALGO_0: every layout, not deterministic;  ALGO_1: deterministic, needs workspace
//   backward filter  ALGO_0: every layout, not deterministic;  ALGO_1: deterministic, needs workspace;  ALGO_3: NCHW only
//   ALGO_1 with NHWC float32 exists on tensor cores only: not with CUDNN_FMA_MATH, and not below compute capability 8.0
//
// Float32 operands are rounded to TF32 from 8.0 on, unless the math type is CUDNN_FMA_MATH. Status values are those of cuDNN 9.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "emulator/platform/handles.h"
#include "emulator/platform/library.h"
#include "emulator/platform/numbers.h"

using namespace bireal::emulator;

namespace {

enum Status : int {
  kOk = 0,
  kNotInitialised = 1001,
  kBadParameter = 2000,
  kNullPointer = 2002,
  kSizeInsufficient = 2006,
  kShapeMismatch = 2008,
  kUnsupported = 3000,
  kUnsupportedLayout = 3004,
  kArchMismatch = 3007,
  kInternalError = 4000,
  kExecutionFailed = 5000,
};

constexpr int kNchw = 0, kNhwc = 1;
constexpr int kDefaultMath = 0, kTensorOpMath = 1, kAllowConversion = 2, kFmaMath = 3;

struct Handle {
  uint64_t stream = 0;
};

struct Tensor {
  bool set = false;
  int type = 0;
  std::array<int64_t, 4> dims{}, strides{};  // N C H W

  int64_t count() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  /// Elements from the first to behind the last.
  int64_t span() const {
    int64_t last = 0;
    for (size_t i = 0; i < 4; ++i) last += (dims[i] - 1) * strides[i];
    return last + 1;
  }
  bool packed_as(int format) const { return strides == strides_of(format, dims); }
  static std::array<int64_t, 4> strides_of(int format, const std::array<int64_t, 4>& d) {
    if (format == kNhwc) return {d[1] * d[2] * d[3], 1, d[3] * d[1], d[1]};
    return {d[1] * d[2] * d[3], d[2] * d[3], d[3], 1};
  }
};

struct Filter {
  bool set = false;
  int type = 0, format = kNchw;
  std::array<int64_t, 4> dims{};  // K C R S
  Tensor as_tensor() const { return {set, type, dims, Tensor::strides_of(format, dims)}; }
};

struct ConvolutionOptions {
  bool set = false;
  int64_t pad_h = 0, pad_w = 0, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  int mode = 1, compute_type = 0, math_type = kDefaultMath, groups = 1;
};

template <class T>
Handles<T>& table(uint64_t tag) {
  static auto* handles = new Handles<T>(tag);
  return *handles;
}
Handles<Handle>& contexts() { return table<Handle>(0x62); }
Handles<Tensor>& tensors() { return table<Tensor>(0x63); }
Handles<Filter>& filters() { return table<Filter>(0x64); }
Handles<ConvolutionOptions>& convolutions() { return table<ConvolutionOptions>(0x65); }

bool storage_of(int type, Storage* storage) {
  switch (type) {
    case 0: *storage = Storage::kFloat; return true;
    case 2: *storage = Storage::kHalf; return true;
    case 9: *storage = Storage::kBfloat16; return true;
    default: return false;
  }
}

bool legal_type(int type) { return type >= 0 && type <= 14; }

enum class Pass { kForward, kBackwardData, kBackwardFilter };
constexpr int kAlgorithmCount[] = {8, 6, 7};

/// One convolution: x [N,C,H,W], w [K,C,R,S], y [N,K,P,Q], whichever of them is the output.
struct Problem {
  const char* name = "";
  Pass pass = Pass::kForward;
  Tensor x, y;
  Filter w;
  ConvolutionOptions options;
};

struct Plan {
  int status = kOk;
  std::string why;
  bool deterministic = true;
  uint64_t workspace_bytes = 0;
};

Plan unsupported(int status, const std::string& why) {
  Plan plan;
  plan.status = status;
  plan.why = why;
  return plan;
}

int64_t output_size(int64_t in, int64_t filter, int64_t pad, int64_t stride, int64_t dilation) {
  return 1 + (in + 2 * pad - ((filter - 1) * dilation + 1)) / stride;
}

/// Whether the shapes fit together.
Plan check_shapes(const Problem& p) {
  if (!p.x.set || !p.y.set || !p.w.set || !p.options.set) return unsupported(kBadParameter, "a descriptor was not set");
  if (p.x.dims[1] != p.w.dims[1])
    return unsupported(kShapeMismatch,
                       "x has " + std::to_string(p.x.dims[1]) + " channels, the filter " + std::to_string(p.w.dims[1]));
  const ConvolutionOptions& o = p.options;
  std::array<int64_t, 4> expected = {p.x.dims[0], p.w.dims[0],
                                     output_size(p.x.dims[2], p.w.dims[2], o.pad_h, o.stride_h, o.dilation_h),
                                     output_size(p.x.dims[3], p.w.dims[3], o.pad_w, o.stride_w, o.dilation_w)};
  if (p.y.dims != expected) {
    std::string text;
    for (int64_t dim : expected) text += (text.empty() ? "" : " x ") + std::to_string(dim);
    return unsupported(kShapeMismatch, "y must be " + text);
  }
  return {};
}

uint64_t aligned(int64_t bytes) { return uint64_t(bytes + 255) / 256 * 256; }

Plan plan(const Problem& p, int algorithm) {
  if (algorithm < 0 || algorithm >= kAlgorithmCount[int(p.pass)])
    return unsupported(kBadParameter, "algorithm " + std::to_string(algorithm) + " does not exist for this pass");
  Plan shapes = check_shapes(p);
  if (shapes.status != kOk) return shapes;
  Storage storage = Storage::kFloat;
  if (!storage_of(p.x.type, &storage)) return unsupported(kUnsupported, "data type " + std::to_string(p.x.type));
  if (p.x.type != p.y.type || p.x.type != p.w.type) return unsupported(kUnsupported, "x, w and y have different data types");
  if (p.options.compute_type != 0)
    return unsupported(kUnsupported, "compute type " + std::to_string(p.options.compute_type) + "; only CUDNN_DATA_FLOAT");
  if (p.options.groups != 1) return unsupported(kUnsupported, std::to_string(p.options.groups) + " groups; only 1 is emulated");
  int64_t capability = setting("compute_capability");
  if (storage == Storage::kBfloat16 && capability < 80)
    return unsupported(kArchMismatch, "bfloat16 needs compute capability 8.0");
  bool nhwc = p.w.format == kNhwc;
  if (nhwc && (!p.x.packed_as(kNhwc) || !p.y.packed_as(kNhwc)))
    return unsupported(kUnsupportedLayout, "an NHWC filter needs x and y packed as NHWC");
  if (!nhwc && storage == Storage::kBfloat16) return unsupported(kUnsupportedLayout, "bfloat16 convolutions need NHWC");
  bool dilated = p.options.dilation_h != 1 || p.options.dilation_w != 1;
  bool tensor_cores = storage != Storage::kFloat || (capability >= 80 && p.options.math_type != kFmaMath);
  Plan result;
  switch (p.pass) {
    case Pass::kForward:
      if (algorithm > 2) return unsupported(kUnsupported, "this algorithm is not supported");
      if (algorithm != 1 && nhwc) return unsupported(kUnsupportedLayout, "NHWC needs IMPLICIT_PRECOMP_GEMM");
      if (algorithm == 2 && dilated) return unsupported(kUnsupported, "GEMM takes no dilation");
      if (algorithm == 1) result.workspace_bytes = aligned(p.y.dims[2] * p.y.dims[3] * p.w.dims[2] * p.w.dims[3] * 4);
      if (algorithm == 2)
        result.workspace_bytes = aligned(p.y.dims[2] * p.y.dims[3] * p.w.dims[1] * p.w.dims[2] * p.w.dims[3] * 4);
      return result;
    case Pass::kBackwardData:
      if (algorithm > 1) return unsupported(kUnsupported, "this algorithm is not supported");
      if (algorithm == 1) result.workspace_bytes = aligned(p.x.count() * 4);
      break;
    case Pass::kBackwardFilter:
      if (algorithm != 0 && algorithm != 1 && algorithm != 3) return unsupported(kUnsupported, "this algorithm is not supported");
      if (algorithm == 3 && nhwc) return unsupported(kUnsupportedLayout, "ALGO_3 needs an NCHW filter");
      if (algorithm != 0) result.workspace_bytes = aligned(p.w.as_tensor().count() * 4 * 2);
      break;
  }
  if (algorithm == 1 && nhwc && !tensor_cores)
    return unsupported(kUnsupported, "ALGO_1 with NHWC and true float32 (CUDNN_FMA_MATH, or below 8.0) is not supported");
  result.deterministic = algorithm == 1;
  return result;
}

// ---- Running

std::vector<float> gather(const Tensor& t, Storage storage, uint64_t address, Operands operands) {
  std::vector<float> values(size_t(t.count()));
  const auto* data = reinterpret_cast<const unsigned char*>(address);
  size_t i = 0;
  for (int64_t n = 0; n < t.dims[0]; ++n)
    for (int64_t c = 0; c < t.dims[1]; ++c)
      for (int64_t h = 0; h < t.dims[2]; ++h)
        for (int64_t w = 0; w < t.dims[3]; ++w) {
          int64_t at = n * t.strides[0] + c * t.strides[1] + h * t.strides[2] + w * t.strides[3];
          values[i++] = round_operand(operands, load(storage, data + uint64_t(at) * storage_bytes(storage)));
        }
  return values;
}

/// Calls `touch` for the bytes of the tensor: once where it has no gaps, else for each element.
template <class Touch>
void for_each_range(const Tensor& t, Storage storage, uint64_t address, Touch&& touch) {
  uint64_t size = storage_bytes(storage);
  if (t.span() == t.count()) {
    touch(Range{address, uint64_t(t.count()) * size});
    return;
  }
  for (int64_t n = 0; n < t.dims[0]; ++n)
    for (int64_t c = 0; c < t.dims[1]; ++c)
      for (int64_t h = 0; h < t.dims[2]; ++h)
        for (int64_t w = 0; w < t.dims[3]; ++w)
          touch(
              Range{address + uint64_t(n * t.strides[0] + c * t.strides[1] + h * t.strides[2] + w * t.strides[3]) * size, size});
}

/// [outer][rows][columns] as [outer][columns][rows].
template <class T>
std::vector<T> transposed(const std::vector<T>& values, int64_t outer, int64_t rows, int64_t columns) {
  std::vector<T> out(values.size());
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        out[size_t((o * columns + c) * rows + r)] = values[size_t((o * rows + r) * columns + c)];
  return out;
}

/// out += factors[0] rows[0] + factors[1] rows[1] + ..., one after the other.
template <int kRows>
void add_rows(double* out, const float* const* rows, const double* factors, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    double sum = out[i];
    for (int row = 0; row < kRows; ++row) sum += factors[row] * double(rows[row][i]);
    out[i] = sum;
  }
}

/// The sums of the pass, in double, in N C H W order of the output. Channels are innermost while it computes: images end with one
/// pixel, where rows of them would be loops of one.
std::vector<double> convolve(const Problem& p, const std::vector<float>& first, const std::vector<float>& second) {
  const ConvolutionOptions& o = p.options;
  const int64_t N = p.y.dims[0], K = p.y.dims[1], P = p.y.dims[2], Q = p.y.dims[3], C = p.w.dims[1], R = p.w.dims[2],
                S = p.w.dims[3], H = p.x.dims[2], W = p.x.dims[3], taps = R * S;
  // out[to] += from[source] * factor, for each pair of pixels that a tap joins and each channel that the three do not share:
  //              out                 from             factor
  // forward      y[pixel] of K       w[c, tap] of K   x[pixel, c]
  // data         dx[pixel] of C      w[k, tap] of C   dy[pixel, k]
  // filter       dw[c, tap] of K     dy[pixel] of K   x[pixel, c]
  const bool data = p.pass == Pass::kBackwardData, filter = p.pass == Pass::kBackwardFilter;
  const int64_t row = data ? C : K, shared = data ? K : C;
  const std::vector<float> images = data ? transposed(second, N, K, P * Q) : transposed(first, N, C, H * W);
  const std::vector<float> from = data     ? transposed(first, K, C, taps)
                                  : filter ? transposed(second, N, K, P * Q)
                                           : transposed(second, 1, K, C * taps);
  std::vector<double> out(size_t(row * (data ? N * H * W : filter ? C * taps : N * P * Q)));
  std::vector<std::pair<int64_t, int64_t>> pixels;  // of x and y
  for (int64_t r = 0; r < R; ++r)
    for (int64_t s = 0; s < S; ++s) {
      pixels.clear();
      for (int64_t n = 0; n < N; ++n)
        for (int64_t i = 0; i < P; ++i)
          for (int64_t j = 0; j < Q; ++j) {
            const int64_t h = i * o.stride_h - o.pad_h + r * o.dilation_h, w = j * o.stride_w - o.pad_w + s * o.dilation_w;
            if (h >= 0 && h < H && w >= 0 && w < W) pixels.push_back({(n * H + h) * W + w, (n * P + i) * Q + j});
          }
      // CUDNN_CONVOLUTION (mode 0) flips the filter.
      const int64_t tap = o.mode == 0 ? taps - 1 - (r * S + s) : r * S + s;
      const float* rows[4];
      double factors[4];
      int pending = 0;
      auto flush = [&](double* target, bool whole) {
        if (pending == 4) {
          add_rows<4>(target, rows, factors, row);
          pending = 0;
        }
        if (!whole) return;
        for (int i = 0; i < pending; ++i) add_rows<1>(target, rows + i, factors + i, row);
        pending = 0;
      };
      if (filter) {
        for (int64_t c = 0; c < C; ++c) {
          double* target = out.data() + (c * taps + tap) * row;
          for (const auto& [x, y] : pixels) {
            rows[pending] = from.data() + y * row;
            factors[pending++] = double(images[size_t(x * C + c)]);
            flush(target, false);
          }
          flush(target, true);
        }
        continue;
      }
      for (int64_t channel = 0; channel < shared; channel += 4)  // four rows of the filter stay in a cache for all pixels
        for (const auto& [x, y] : pixels) {
          for (int64_t c = channel; c < std::min(channel + 4, shared); ++c) {
            rows[pending] = from.data() + (c * taps + tap) * row;
            factors[pending++] = double(images[size_t((data ? y : x) * shared + c)]);
          }
          flush(out.data() + (data ? x : y) * row, true);
        }
    }
  return data ? transposed(out, N, H * W, C) : filter ? transposed(out, 1, C * taps, K) : transposed(out, N, P * Q, K);
}

struct Operand {
  Tensor tensor;
  uint64_t address = 0;
  const char* name = "";
};

int run_convolution(uint64_t handle_number, const Problem& p, int algorithm, const Operand& first, const Operand& second,
                    const Operand& output, const float* alpha, const float* beta, uint64_t workspace, size_t workspace_bytes) {
  Handle* handle = contexts().get(handle_number);
  if (handle == nullptr) return refuse(p.name, kNotInitialised, "no such cuDNN handle");
  Plan chosen = plan(p, algorithm);
  if (chosen.status != kOk) return refuse(p.name, chosen.status, chosen.why);
  if (alpha == nullptr || beta == nullptr) return refuse(p.name, kNullPointer, "alpha or beta is null");
  Storage storage = Storage::kFloat;
  storage_of(p.x.type, &storage);
  for (const Operand* operand : {&first, &second, &output}) {
    std::string why;
    if (operand->address == 0) return refuse(p.name, kNullPointer, std::string(operand->name) + " is null");
    if (operand->address % storage_bytes(storage) != 0)
      return refuse(p.name, 2003, std::string(operand->name) + " is not aligned to its type");
    if (!device_memory({operand->address, 1}, &why))
      return refuse(p.name, kExecutionFailed, std::string(operand->name) + ": " + why);
  }
  if (workspace_bytes < chosen.workspace_bytes || (chosen.workspace_bytes > 0 && workspace == 0))
    return refuse(p.name, kSizeInsufficient,
                  "the workspace has " + std::to_string(workspace_bytes) + " bytes, " + std::to_string(chosen.workspace_bytes) +
                      " are needed");
  Operands operands = Operands::kExact;
  if (storage == Storage::kFloat && p.options.math_type == kAllowConversion) operands = Operands::kHalf;
  if (storage == Storage::kFloat && p.options.math_type <= kTensorOpMath && setting("compute_capability") >= 80)
    operands = Operands::kTf32;
  double a = double(*alpha), b = double(*beta);
  const double injected = setting("wrong_algorithm") == algorithm && p.w.format == kNhwc ? 1 : 0;
  Range scratch{workspace, chosen.workspace_bytes};
  Work work;
  work.name = p.name;
  work.run = [=](Execution& e) {
    for (const Operand& input : {first, second})
      for_each_range(input.tensor, storage, input.address, [&](Range range) { e.read(range, input.name); });
    for_each_range(output.tensor, storage, output.address, [&](Range range) {
      if (b != 0) e.read(range, output.name);
      e.write(range, output.name);
    });
    e.scratch(scratch, "workspace");
    std::vector<double> sums = convolve(p, gather(first.tensor, storage, first.address, operands),
                                        gather(second.tensor, storage, second.address, operands));
    const Tensor& t = output.tensor;
    auto* data = reinterpret_cast<unsigned char*>(output.address);
    size_t i = 0;
    for (int64_t n = 0; n < t.dims[0]; ++n)
      for (int64_t c = 0; c < t.dims[1]; ++c)
        for (int64_t h = 0; h < t.dims[2]; ++h)
          for (int64_t w = 0; w < t.dims[3]; ++w) {
            int64_t at = n * t.strides[0] + c * t.strides[1] + h * t.strides[2] + w * t.strides[3];
            unsigned char* place = data + uint64_t(at) * storage_bytes(storage);
            double result = a * (sums[i++] + injected);
            if (b != 0) result += b * double(load(storage, place));
            store(storage, place, result);
          }
  };
  int result = submit_library_call(handle->stream, std::move(work));
  return result == 0 ? kOk : refuse(p.name, kExecutionFailed, bireal_emulator_last_error());
}

// ---- Choosing an algorithm

struct Performance {  // cudnnConvolution*AlgoPerf_t
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math_type;
  int reserved[3];
};

/// Supported algorithms, fastest first, with the math types that each has; then the others with their status.
int list_algorithms(uint64_t handle_number, Problem p, int wanted, int* returned, Performance* results, bool measured) {
  if (contexts().get(handle_number) == nullptr) return refuse(p.name, kNotInitialised, "no such cuDNN handle");
  if (returned == nullptr || results == nullptr) return refuse(p.name, kNullPointer, "a result pointer is null");
  if (wanted < 1) return refuse(p.name, kBadParameter, "requestedAlgoCount must be at least 1");
  Plan shapes = check_shapes(p);
  if (shapes.status != kOk) return refuse(p.name, shapes.status, shapes.why);
  if (measured && capturing(contexts().get(handle_number)->stream))
    return refuse(p.name, kInternalError, "timing needs synchronisation, which a capture forbids");
  if (p.w.format == kNhwc && setting("list_status") != 0) {
    const int status = int(setting("list_status"));
    *returned = status < 10000 ? 0 : 99;
    return refuse(p.name, status % 10000, "list_status is set");
  }
  std::vector<Performance> list;
  bool is_float = p.x.type == 0;
  // With FMA asked for there is nothing else; otherwise tensor cores first.
  std::vector<int> math_types = p.options.math_type == kFmaMath ? std::vector<int>{kFmaMath}
                                : is_float                      ? std::vector<int>{p.options.math_type, kFmaMath}
                                                                : std::vector<int>{kTensorOpMath, kDefaultMath};
  float time = 0.01f;
  for (bool supported : {true, false})
    for (int math_type : math_types)
      // The atomics of ALGO_0 are often the fastest, so a program that takes the first entry meets it here.
      for (int algorithm = 0; algorithm < kAlgorithmCount[int(p.pass)]; ++algorithm) {
        p.options.math_type = math_type;
        Plan candidate = plan(p, algorithm);
        if ((candidate.status == kOk) != supported || (!supported && math_type != math_types.front())) continue;
        Performance entry{};
        entry.algorithm = algorithm;
        entry.status = candidate.status;
        entry.time = supported && measured ? time : -1.0f;
        entry.memory = size_t(candidate.workspace_bytes);
        entry.determinism = candidate.deterministic;
        entry.math_type = math_type;
        time *= 1.5f;
        list.push_back(entry);
      }
  *returned = int(std::min<size_t>(size_t(wanted), list.size()));
  std::copy(list.begin(), list.begin() + *returned, results);
  return kOk;
}

bool problem(Problem* p, uint64_t x, uint64_t w, uint64_t y, uint64_t options) {
  Tensor *x_found = tensors().get(x), *y_found = tensors().get(y);
  Filter* w_found = filters().get(w);
  ConvolutionOptions* options_found = convolutions().get(options);
  if (x_found == nullptr || y_found == nullptr || w_found == nullptr || options_found == nullptr) return false;
  p->x = *x_found;
  p->y = *y_found;
  p->w = *w_found;
  p->options = *options_found;
  return true;
}

#define PROBLEM(function, which_pass, x_desc, w_desc, y_desc, options_desc) \
  Problem p;                                                                \
  p.name = function;                                                        \
  p.pass = which_pass;                                                      \
  if (!problem(&p, x_desc, w_desc, y_desc, options_desc)) return refuse(function, kBadParameter, "no such descriptor")

int workspace_size(const Problem& p, int algorithm, size_t* bytes) {
  if (bytes == nullptr) return refuse(p.name, kNullPointer, "bytes is null");
  Plan chosen = plan(p, algorithm);
  *bytes = size_t(chosen.workspace_bytes);
  return chosen.status == kOk ? int(kOk) : refuse(p.name, chosen.status, chosen.why);
}

int set_tensor(const char* name, uint64_t descriptor, int type, std::array<int64_t, 4> dims, std::array<int64_t, 4> strides) {
  Tensor* tensor = tensors().get(descriptor);
  if (tensor == nullptr) return refuse(name, kBadParameter, "no such tensor descriptor");
  if (!legal_type(type)) return refuse(name, kBadParameter, "data type " + std::to_string(type) + " is no cudnnDataType_t");
  for (size_t i = 0; i < 4; ++i)
    if (dims[i] < 1 || strides[i] < 1) return refuse(name, kBadParameter, "a size or stride below 1");
  *tensor = {true, type, dims, strides};
  if (tensor->span() > INT32_MAX) return refuse(name, kUnsupported, "more than 2^31 - 1 elements");
  return kOk;
}

}  // namespace

API size_t cudnnGetVersion() { return size_t(setting("cudnn_version")); }
API size_t cudnnGetCudartVersion() { return 12060; }
API size_t cudnnGetMaxDeviceVersion() { return 9000; }

API const char* cudnnGetErrorString(int status) {
  switch (status) {
    case kOk: return "CUDNN_STATUS_SUCCESS";
    case kNotInitialised: return "CUDNN_STATUS_NOT_INITIALIZED";
    case kBadParameter: return "CUDNN_STATUS_BAD_PARAM";
    case kNullPointer: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case 2003: return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
    case kSizeInsufficient: return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case kShapeMismatch: return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case kUnsupported: return "CUDNN_STATUS_NOT_SUPPORTED";
    case kUnsupportedLayout: return "CUDNN_STATUS_NOT_SUPPORTED_LAYOUT";
    case kArchMismatch: return "CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH";
    case kInternalError: return "CUDNN_STATUS_INTERNAL_ERROR";
    case 4003: return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    case 4004: return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
    case kExecutionFailed: return "CUDNN_STATUS_EXECUTION_FAILED";
    default: return "unknown status";
  }
}

API void cudnnGetLastErrorString(char* text, size_t room) {
  if (text != nullptr && room > 0) {
    std::strncpy(text, bireal_emulator_last_error(), room - 1);
    text[room - 1] = 0;
  }
}

API int cudnnGetProperty(int type, int* value) {
  int version = int(setting("cudnn_version"));
  if (value == nullptr || type < 0 || type > 2) return refuse("cudnnGetProperty", kBadParameter, "unknown property");
  *value = type == 0 ? version / 10000 : type == 1 ? version / 100 % 100 : version % 100;
  return kOk;
}

API int cudnnCreate(uint64_t* handle) {
  if (handle == nullptr) return refuse("cudnnCreate", kNullPointer, "handle is null");
  *handle = contexts().create();
  return kOk;
}

API int cudnnDestroy(uint64_t handle) {
  return contexts().destroy(handle) ? int(kOk) : refuse("cudnnDestroy", kBadParameter, "no such cuDNN handle");
}

API int cudnnSetStream(uint64_t handle, uint64_t stream) {
  Handle* found = contexts().get(handle);
  if (found == nullptr) return refuse("cudnnSetStream", kBadParameter, "no such cuDNN handle");
  found->stream = stream;
  return kOk;
}

API int cudnnGetStream(uint64_t handle, uint64_t* stream) {
  Handle* found = contexts().get(handle);
  if (found == nullptr || stream == nullptr) return refuse("cudnnGetStream", kBadParameter, "no such cuDNN handle");
  *stream = found->stream;
  return kOk;
}

// ---- Descriptors

API int cudnnCreateTensorDescriptor(uint64_t* descriptor) {
  *descriptor = tensors().create();
  return kOk;
}
API int cudnnDestroyTensorDescriptor(uint64_t descriptor) {
  return tensors().destroy(descriptor) ? int(kOk) : int(kBadParameter);
}
API int cudnnCreateFilterDescriptor(uint64_t* descriptor) {
  *descriptor = filters().create();
  return kOk;
}
API int cudnnDestroyFilterDescriptor(uint64_t descriptor) {
  return filters().destroy(descriptor) ? int(kOk) : int(kBadParameter);
}
API int cudnnCreateConvolutionDescriptor(uint64_t* descriptor) {
  *descriptor = convolutions().create();
  return kOk;
}
API int cudnnDestroyConvolutionDescriptor(uint64_t descriptor) {
  return convolutions().destroy(descriptor) ? int(kOk) : int(kBadParameter);
}

API int cudnnSetTensor4dDescriptor(uint64_t descriptor, int format, int type, int n, int c, int h, int w) {
  if (format != kNchw && format != kNhwc)
    return refuse("cudnnSetTensor4dDescriptor", format == 2 ? kUnsupported : kBadParameter, "format " + std::to_string(format));
  std::array<int64_t, 4> dims = {n, c, h, w};
  return set_tensor("cudnnSetTensor4dDescriptor", descriptor, type, dims, Tensor::strides_of(format, dims));
}

API int cudnnSetTensor4dDescriptorEx(uint64_t descriptor, int type, int n, int c, int h, int w, int stride_n, int stride_c,
                                     int stride_h, int stride_w) {
  return set_tensor("cudnnSetTensor4dDescriptorEx", descriptor, type, {n, c, h, w}, {stride_n, stride_c, stride_h, stride_w});
}

API int cudnnSetTensorNdDescriptor(uint64_t descriptor, int type, int rank, const int* dims, const int* strides) {
  if (rank != 4) return refuse("cudnnSetTensorNdDescriptor", kUnsupported, "only tensors of rank 4 are emulated");
  return set_tensor("cudnnSetTensorNdDescriptor", descriptor, type, {dims[0], dims[1], dims[2], dims[3]},
                    {strides[0], strides[1], strides[2], strides[3]});
}

API int cudnnSetTensorNdDescriptorEx(uint64_t descriptor, int format, int type, int rank, const int* dims) {
  if (rank != 4) return refuse("cudnnSetTensorNdDescriptorEx", kUnsupported, "only tensors of rank 4 are emulated");
  return cudnnSetTensor4dDescriptor(descriptor, format, type, dims[0], dims[1], dims[2], dims[3]);
}

API int cudnnGetTensor4dDescriptor(uint64_t descriptor, int* type, int* n, int* c, int* h, int* w, int* stride_n, int* stride_c,
                                   int* stride_h, int* stride_w) {
  Tensor* tensor = tensors().get(descriptor);
  if (tensor == nullptr) return refuse("cudnnGetTensor4dDescriptor", kBadParameter, "no such tensor descriptor");
  *type = tensor->type;
  int* dims[] = {n, c, h, w};
  int* strides[] = {stride_n, stride_c, stride_h, stride_w};
  for (size_t i = 0; i < 4; ++i) {
    *dims[i] = int(tensor->dims[i]);
    *strides[i] = int(tensor->strides[i]);
  }
  return kOk;
}

API int cudnnGetTensorSizeInBytes(uint64_t descriptor, size_t* bytes) {
  Tensor* tensor = tensors().get(descriptor);
  Storage storage = Storage::kFloat;
  if (tensor == nullptr || !storage_of(tensor->type, &storage))
    return refuse("cudnnGetTensorSizeInBytes", kBadParameter, "no such tensor descriptor, or a type that is not emulated");
  *bytes = size_t(tensor->span()) * storage_bytes(storage);
  return kOk;
}

API int cudnnSetFilter4dDescriptor(uint64_t descriptor, int type, int format, int k, int c, int r, int s) {
  Filter* filter = filters().get(descriptor);
  if (filter == nullptr) return refuse("cudnnSetFilter4dDescriptor", kBadParameter, "no such filter descriptor");
  if (!legal_type(type)) return refuse("cudnnSetFilter4dDescriptor", kBadParameter, "data type " + std::to_string(type));
  if (format != kNchw && format != kNhwc)
    return refuse("cudnnSetFilter4dDescriptor", format == 2 ? kUnsupported : kBadParameter, "format " + std::to_string(format));
  if (k < 1 || c < 1 || r < 1 || s < 1) return refuse("cudnnSetFilter4dDescriptor", kBadParameter, "a size below 1");
  *filter = {true, type, format, {k, c, r, s}};
  return kOk;
}

API int cudnnSetFilterNdDescriptor(uint64_t descriptor, int type, int format, int rank, const int* dims) {
  if (rank != 4) return refuse("cudnnSetFilterNdDescriptor", kUnsupported, "only filters of rank 4 are emulated");
  return cudnnSetFilter4dDescriptor(descriptor, type, format, dims[0], dims[1], dims[2], dims[3]);
}

API int cudnnGetFilterSizeInBytes(uint64_t descriptor, size_t* bytes) {
  Filter* filter = filters().get(descriptor);
  Storage storage = Storage::kFloat;
  if (filter == nullptr || !storage_of(filter->type, &storage))
    return refuse("cudnnGetFilterSizeInBytes", kBadParameter, "no such filter descriptor, or a type that is not emulated");
  *bytes = size_t(filter->as_tensor().count()) * storage_bytes(storage);
  return kOk;
}

API int cudnnSetConvolution2dDescriptor(uint64_t descriptor, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                        int dilation_w, int mode, int compute_type) {
  ConvolutionOptions* options = convolutions().get(descriptor);
  if (options == nullptr) return refuse("cudnnSetConvolution2dDescriptor", kBadParameter, "no such convolution descriptor");
  if (pad_h < 0 || pad_w < 0 || stride_h < 1 || stride_w < 1 || dilation_h < 1 || dilation_w < 1)
    return refuse("cudnnSetConvolution2dDescriptor", kBadParameter, "a negative padding, or a stride or dilation below 1");
  if (mode != 0 && mode != 1) return refuse("cudnnSetConvolution2dDescriptor", kBadParameter, "mode " + std::to_string(mode));
  if (!legal_type(compute_type))
    return refuse("cudnnSetConvolution2dDescriptor", kBadParameter, "compute type " + std::to_string(compute_type));
  // Math type and groups survive, as in cuDNN.
  options->set = true;
  options->pad_h = pad_h, options->pad_w = pad_w;
  options->stride_h = stride_h, options->stride_w = stride_w;
  options->dilation_h = dilation_h, options->dilation_w = dilation_w;
  options->mode = mode;
  options->compute_type = compute_type;
  return kOk;
}

API int cudnnSetConvolutionNdDescriptor(uint64_t descriptor, int rank, const int* pads, const int* strides, const int* dilations,
                                        int mode, int compute_type) {
  if (rank != 2) return refuse("cudnnSetConvolutionNdDescriptor", kUnsupported, "only 2-D convolutions are emulated");
  return cudnnSetConvolution2dDescriptor(descriptor, pads[0], pads[1], strides[0], strides[1], dilations[0], dilations[1], mode,
                                         compute_type);
}

API int cudnnSetConvolutionMathType(uint64_t descriptor, int math_type) {
  ConvolutionOptions* options = convolutions().get(descriptor);
  if (options == nullptr || math_type < 0 || math_type > 3)
    return refuse("cudnnSetConvolutionMathType", kBadParameter, "no such descriptor, or math type " + std::to_string(math_type));
  options->math_type = math_type;
  return kOk;
}

API int cudnnGetConvolutionMathType(uint64_t descriptor, int* math_type) {
  ConvolutionOptions* options = convolutions().get(descriptor);
  if (options == nullptr || math_type == nullptr)
    return refuse("cudnnGetConvolutionMathType", kBadParameter, "no such descriptor");
  *math_type = options->math_type;
  return kOk;
}

API int cudnnSetConvolutionGroupCount(uint64_t descriptor, int groups) {
  ConvolutionOptions* options = convolutions().get(descriptor);
  if (options == nullptr || groups < 1)
    return refuse("cudnnSetConvolutionGroupCount", kBadParameter, "no such descriptor, or no groups");
  options->groups = groups;
  return kOk;
}

API int cudnnGetConvolutionGroupCount(uint64_t descriptor, int* groups) {
  ConvolutionOptions* options = convolutions().get(descriptor);
  if (options == nullptr || groups == nullptr)
    return refuse("cudnnGetConvolutionGroupCount", kBadParameter, "no such descriptor");
  *groups = options->groups;
  return kOk;
}

API int cudnnGetConvolution2dForwardOutputDim(uint64_t options_desc, uint64_t x_desc, uint64_t w_desc, int* n, int* k, int* p,
                                              int* q) {
  ConvolutionOptions* o = convolutions().get(options_desc);
  Tensor* x = tensors().get(x_desc);
  Filter* w = filters().get(w_desc);
  if (o == nullptr || x == nullptr || w == nullptr || !o->set || !x->set || !w->set)
    return refuse("cudnnGetConvolution2dForwardOutputDim", kBadParameter, "a descriptor is missing or not set");
  if (x->dims[1] != w->dims[1] * o->groups)
    return refuse("cudnnGetConvolution2dForwardOutputDim", kShapeMismatch, "x and the filter have different channels");
  *n = int(x->dims[0]);
  *k = int(w->dims[0]);
  *p = int(output_size(x->dims[2], w->dims[2], o->pad_h, o->stride_h, o->dilation_h));
  *q = int(output_size(x->dims[3], w->dims[3], o->pad_w, o->stride_w, o->dilation_w));
  return *p > 0 && *q > 0 ? int(kOk) : refuse("cudnnGetConvolution2dForwardOutputDim", kBadParameter, "the output is empty");
}

// ---- Algorithms of each pass. The calls of a pass take its two operands, the convolution and its output; in a PROBLEM they are
// x, the filter and y.

#define ALGORITHM_CALLS(PASS, FIRST, SECOND, OUT, X, W, Y)                                                                    \
  API int cudnnGetConvolution##PASS##AlgorithmMaxCount(uint64_t, int* count) {                                                \
    *count = kAlgorithmCount[int(Pass::k##PASS)] * 2;                                                                         \
    return kOk;                                                                                                               \
  }                                                                                                                           \
  API int cudnnGetConvolution##PASS##Algorithm_v7(uint64_t handle, uint64_t FIRST, uint64_t SECOND, uint64_t options,         \
                                                  uint64_t OUT, int wanted, int* returned, Performance* results) {            \
    PROBLEM("cudnnGetConvolution" #PASS "Algorithm_v7", Pass::k##PASS, X, W, Y, options);                                     \
    return list_algorithms(handle, p, wanted, returned, results, false);                                                      \
  }                                                                                                                           \
  API int cudnnFindConvolution##PASS##Algorithm(uint64_t handle, uint64_t FIRST, uint64_t SECOND, uint64_t options,           \
                                                uint64_t OUT, int wanted, int* returned, Performance* results) {              \
    PROBLEM("cudnnFindConvolution" #PASS "Algorithm", Pass::k##PASS, X, W, Y, options);                                       \
    return list_algorithms(handle, p, wanted, returned, results, true);                                                       \
  }                                                                                                                           \
  API int cudnnGetConvolution##PASS##WorkspaceSize(uint64_t, uint64_t FIRST, uint64_t SECOND, uint64_t options, uint64_t OUT, \
                                                   int algorithm, size_t* bytes) {                                            \
    PROBLEM("cudnnGetConvolution" #PASS "WorkspaceSize", Pass::k##PASS, X, W, Y, options);                                    \
    return workspace_size(p, algorithm, bytes);                                                                               \
  }
ALGORITHM_CALLS(Forward, x, w, y, x, w, y)
ALGORITHM_CALLS(BackwardData, w, dy, dx, dx, w, dy)
ALGORITHM_CALLS(BackwardFilter, x, dy, dw, x, dw, dy)

// ---- The passes themselves

API int cudnnConvolutionForward(uint64_t handle, const float* alpha, uint64_t x_desc, uint64_t x, uint64_t w_desc, uint64_t w,
                                uint64_t options, int algorithm, uint64_t workspace, size_t workspace_bytes, const float* beta,
                                uint64_t y_desc, uint64_t y) {
  PROBLEM("cudnnConvolutionForward", Pass::kForward, x_desc, w_desc, y_desc, options);
  return run_convolution(handle, p, algorithm, {p.x, x, "x"}, {p.w.as_tensor(), w, "w"}, {p.y, y, "y"}, alpha, beta, workspace,
                         workspace_bytes);
}

API int cudnnConvolutionBackwardData(uint64_t handle, const float* alpha, uint64_t w_desc, uint64_t w, uint64_t dy_desc,
                                     uint64_t dy, uint64_t options, int algorithm, uint64_t workspace, size_t workspace_bytes,
                                     const float* beta, uint64_t dx_desc, uint64_t dx) {
  PROBLEM("cudnnConvolutionBackwardData", Pass::kBackwardData, dx_desc, w_desc, dy_desc, options);
  return run_convolution(handle, p, algorithm, {p.w.as_tensor(), w, "w"}, {p.y, dy, "dy"}, {p.x, dx, "dx"}, alpha, beta,
                         workspace, workspace_bytes);
}

API int cudnnConvolutionBackwardFilter(uint64_t handle, const float* alpha, uint64_t x_desc, uint64_t x, uint64_t dy_desc,
                                       uint64_t dy, uint64_t options, int algorithm, uint64_t workspace, size_t workspace_bytes,
                                       const float* beta, uint64_t dw_desc, uint64_t dw) {
  PROBLEM("cudnnConvolutionBackwardFilter", Pass::kBackwardFilter, x_desc, dw_desc, dy_desc, options);
  return run_convolution(handle, p, algorithm, {p.x, x, "x"}, {p.y, dy, "dy"}, {p.w.as_tensor(), dw, "dw"}, alpha, beta,
                         workspace, workspace_bytes);
}

// ---- Find with the caller's memory: overwrites the output and the workspace, as the real one does

namespace {

int find_with_memory(uint64_t handle_number, const Problem& p, const Operand& output, int wanted, int* returned,
                     Performance* results, uint64_t workspace, size_t workspace_bytes) {
  int status = list_algorithms(handle_number, p, wanted, returned, results, true);
  if (status != kOk) return status;
  int kept = 0;
  for (int i = 0; i < *returned; ++i) {
    if (results[i].status == kOk && results[i].memory > workspace_bytes) {
      results[i].status = 4003;  // allocation failed: what the documentation says of a workspace that is too small
      results[i].time = -1;
    }
    ++kept;
  }
  *returned = kept;
  std::stable_sort(results, results + kept,
                   [](const Performance& a, const Performance& b) { return (a.status == 0) > (b.status == 0); });
  Storage storage = Storage::kFloat;
  if (!storage_of(output.tensor.type, &storage)) return kOk;
  Range range{output.address, uint64_t(output.tensor.span()) * storage_bytes(storage)}, scratch{workspace, workspace_bytes};
  Work work;
  work.name = p.name;
  work.run = [=](Execution& e) {
    e.scratch(range, output.name);
    e.scratch(scratch, "workspace");
  };
  int result = submit_library_call(contexts().get(handle_number)->stream, std::move(work));
  return result == 0 ? kOk : refuse(p.name, kExecutionFailed, bireal_emulator_last_error());
}

}  // namespace

API int cudnnFindConvolutionForwardAlgorithmEx(uint64_t handle, uint64_t x_desc, uint64_t, uint64_t w_desc, uint64_t,
                                               uint64_t options, uint64_t y_desc, uint64_t y, int wanted, int* returned,
                                               Performance* results, uint64_t workspace, size_t workspace_bytes) {
  PROBLEM("cudnnFindConvolutionForwardAlgorithmEx", Pass::kForward, x_desc, w_desc, y_desc, options);
  return find_with_memory(handle, p, {p.y, y, "y"}, wanted, returned, results, workspace, workspace_bytes);
}
API int cudnnFindConvolutionBackwardDataAlgorithmEx(uint64_t handle, uint64_t w_desc, uint64_t, uint64_t dy_desc, uint64_t,
                                                    uint64_t options, uint64_t dx_desc, uint64_t dx, int wanted, int* returned,
                                                    Performance* results, uint64_t workspace, size_t workspace_bytes) {
  PROBLEM("cudnnFindConvolutionBackwardDataAlgorithmEx", Pass::kBackwardData, dx_desc, w_desc, dy_desc, options);
  return find_with_memory(handle, p, {p.x, dx, "dx"}, wanted, returned, results, workspace, workspace_bytes);
}
API int cudnnFindConvolutionBackwardFilterAlgorithmEx(uint64_t handle, uint64_t x_desc, uint64_t, uint64_t dy_desc, uint64_t,
                                                      uint64_t options, uint64_t dw_desc, uint64_t dw, int wanted, int* returned,
                                                      Performance* results, uint64_t workspace, size_t workspace_bytes) {
  PROBLEM("cudnnFindConvolutionBackwardFilterAlgorithmEx", Pass::kBackwardFilter, x_desc, dw_desc, dy_desc, options);
  return find_with_memory(handle, p, {p.w.as_tensor(), dw, "dw"}, wanted, returned, results, workspace, workspace_bytes);
}

// ---- Layouts

API int cudnnTransformTensor(uint64_t handle_number, const float* alpha, uint64_t x_desc, uint64_t x, const float* beta,
                             uint64_t y_desc, uint64_t y) {
  const char* call = "cudnnTransformTensor";
  Handle* handle = contexts().get(handle_number);
  Tensor *from = tensors().get(x_desc), *to = tensors().get(y_desc);
  if (handle == nullptr) return refuse(call, kNotInitialised, "no such cuDNN handle");
  if (from == nullptr || to == nullptr || !from->set || !to->set)
    return refuse(call, kBadParameter, "a descriptor does not exist or was not set");
  if (alpha == nullptr || beta == nullptr) return refuse(call, kNullPointer, "alpha or beta is null");
  if (from->dims != to->dims) return refuse(call, kShapeMismatch, "x and y have different sizes");
  Storage storage = Storage::kFloat;
  if (from->type != to->type || !storage_of(from->type, &storage))
    return refuse(call, kUnsupported, "x and y must have the same real type");
  const Operand input{*from, x, "x"}, output{*to, y, "y"};
  for (const Operand* operand : {&input, &output}) {
    std::string why;
    if (!device_memory({operand->address, 1}, &why))
      return refuse(call, kExecutionFailed, std::string(operand->name) + ": " + why);
  }
  const double a = double(*alpha), b = double(*beta);
  Work work;
  work.name = call;
  work.run = [=](Execution& e) {
    for_each_range(input.tensor, storage, input.address, [&](Range range) { e.read(range, input.name); });
    for_each_range(output.tensor, storage, output.address, [&](Range range) {
      if (b != 0) e.read(range, output.name);
      e.write(range, output.name);
    });
    const std::vector<float> values = gather(input.tensor, storage, input.address, Operands::kExact);
    const Tensor& t = output.tensor;
    auto* data = reinterpret_cast<unsigned char*>(output.address);
    size_t i = 0;
    for (int64_t n = 0; n < t.dims[0]; ++n)
      for (int64_t c = 0; c < t.dims[1]; ++c)
        for (int64_t h = 0; h < t.dims[2]; ++h)
          for (int64_t w = 0; w < t.dims[3]; ++w) {
            int64_t at = n * t.strides[0] + c * t.strides[1] + h * t.strides[2] + w * t.strides[3];
            unsigned char* place = data + uint64_t(at) * storage_bytes(storage);
            double result = a * double(values[i++]);
            if (b != 0) result += b * double(load(storage, place));
            store(storage, place, result);
          }
  };
  int result = submit_library_call(handle->stream, std::move(work));
  return result == 0 ? kOk : refuse(call, kExecutionFailed, bireal_emulator_last_error());
}
