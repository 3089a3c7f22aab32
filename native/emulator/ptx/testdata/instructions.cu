// Kernels whose results the host can compute: one family of instructions each. Compiled with --fmad=false.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

struct Args {  // by value: .param space
  const float* x;
  float* y;
  int count;
  short small;
  unsigned char bytes[5];
  double scale;
};

extern "C" __global__ void integer_kernel(const int* a, const int* b, long long* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int x = a[i], y = b[i];
  unsigned ux = x, uy = y;
  long long lx = (long long)x * 3037000493ll + y, ly = ((long long)y << 17) ^ x;
  long long* o = out + (size_t)i * 32;
  o[0] = x + y;
  o[1] = x - y;
  o[2] = x * y;
  o[3] = y ? x / y : 7;
  o[4] = y ? x % y : 7;
  o[5] = uy ? ux / uy : 7;
  o[6] = uy ? ux % uy : 7;
  o[7] = min(x, y);
  o[8] = max(ux, uy);
  o[9] = __mulhi(x, y);
  o[10] = __umulhi(ux, uy);
  o[11] = (long long)x * y;
  o[12] = (unsigned long long)ux * uy;
  o[13] = __popc(x) + __popcll(lx);
  o[14] = __clz(x) + __clzll(ly);
  o[15] = __brev(ux);
  o[16] = (long long)__brevll((unsigned long long)lx);
  o[17] = __ffs(x) + __ffsll(ly);
  o[18] = __byte_perm(ux, uy, ux ^ uy);
  o[19] = __funnelshift_l(ux, uy, uy);
  o[20] = __funnelshift_rc(ux, uy, ux & 63);
  o[21] = (x >> (y & 31)) ^ (int)(ux >> (uy & 31));
  o[22] = lx * ly;
  o[23] = ly ? lx / ly : 9;
  o[24] = ly ? lx % ly : 9;
  o[25] = __mul64hi(lx, ly);
  o[26] = __dp4a(x, y, 5) + __dp2a_lo(x, y, 3);
  o[27] = __dp4a(ux, uy, 5u) + __sad(x, y, 4u);
  o[28] = (x & y) | (~x & (y ^ 0x55)) ^ (x | y);
  o[29] = (int)(signed char)x + (int)(unsigned char)y + (int)(short)(x >> 3);
  o[30] = abs(x) + (x < y ? 10 : 20) + (ux < uy && x != 5 ? 100 : 200);
  int field, inserted;
  asm("bfe.s32 %0, %1, %2, %3;" : "=r"(field) : "r"(x), "r"(y & 31), "r"(ux & 15));
  asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(inserted) : "r"(x), "r"(y), "r"(ux & 31), "r"(uy & 15));
  o[31] = ((long long)field << 32) | (unsigned)inserted;
}

extern "C" __global__ void float_kernel(const float* a, const float* b, float* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float x = a[i], y = b[i];
  float* o = out + (size_t)i * 32;
  o[0] = x + y;
  o[1] = x - y;
  o[2] = x * y;
  o[3] = x / y;
  o[4] = fmaf(x, y, 1.25f);
  o[5] = sqrtf(x);
  o[6] = fminf(x, y);
  o[7] = fmaxf(x, y);
  o[8] = fabsf(x);
  o[9] = -y;
  o[10] = __fadd_rd(x, y);
  o[11] = __fadd_ru(x, y);
  o[12] = __fmul_rz(x, y);
  o[13] = __fmaf_rd(x, y, 0.1f);
  o[14] = __fdiv_ru(x, y);
  o[15] = __fsqrt_rd(x);
  o[16] = floorf(x) + ceilf(y);
  o[17] = rintf(x) - truncf(y);
  o[18] = (float)(int)x + (float)(unsigned)y;
  o[19] = (float)__float2int_rn(x) + (float)__float2ll_rd(y);
  o[20] = x < y ? 1.0f : x > y ? 2.0f : x == y ? 3.0f : 4.0f;
  o[21] = isnan(x) ? 5.0f : isinf(y) ? 6.0f : 7.0f;
  o[22] = expf(x * 0.01f);
  o[23] = logf(fabsf(x) + 0.5f);
  o[24] = rsqrtf(fabsf(y) + 0.25f);
  o[25] = tanhf(x * 0.1f);
  o[26] = sinf(x * 0.01f) + cosf(y * 0.01f);
  o[27] = __frcp_rn(y);
  o[28] = __saturatef(x);
  o[29] = copysignf(x, y);
  o[30] = powf(fabsf(x) * 0.01f + 0.5f, 1.7f);
  o[31] = __expf(x * 0.01f) + __fdividef(x, 3.0f);
}

extern "C" __global__ void double_kernel(const double* a, const double* b, double* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double x = a[i], y = b[i];
  double* o = out + (size_t)i * 12;
  o[0] = x + y;
  o[1] = x * y;
  o[2] = x / y;
  o[3] = sqrt(x);
  o[4] = fma(x, y, 0.3);
  o[5] = (float)x;
  o[6] = (double)(long long)x;
  o[7] = floor(x) + rint(y);
  o[8] = fmin(x, y);
  o[9] = 1.0 / y;
  o[10] = rsqrt(fabs(x) + 1.0);
  o[11] = __dadd_rz(x, y);
}

extern "C" __global__ void half_kernel(const float* a, const float* b, unsigned* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float x = a[i], y = b[i];
  __half h = __float2half_rn(x), g = __float2half_rn(y);
  __nv_bfloat16 p = __float2bfloat16_rn(x), q = __float2bfloat16_rn(y);
  unsigned* o = out + (size_t)i * 20;
  o[0] = __half_as_ushort(h);
  o[1] = __half_as_ushort(__float2half_rz(x));
  o[2] = __half_as_ushort(__float2half_rd(x));
  o[3] = __half_as_ushort(__float2half_ru(x));
  o[4] = __half_as_ushort(__hadd(h, g));
  o[5] = __half_as_ushort(__hmul(h, g));
  o[6] = __half_as_ushort(__hfma(h, g, h));
  o[7] = __half_as_ushort(__hsub(h, g));
  o[8] = (__hlt(h, g) ? 1 : 0) + (__heq(h, g) ? 2 : 0) + (__hgt(h, g) ? 4 : 0);
  __half2 pair = __floats2half2_rn(x, y), sum = __hfma2(pair, __half2half2(g), pair);
  o[9] = *reinterpret_cast<unsigned*>(&pair);
  o[10] = *reinterpret_cast<unsigned*>(&sum);
  o[11] = __bfloat16_as_ushort(p);
  o[12] = __bfloat16_as_ushort(__float2bfloat16_rz(x));
  o[13] = __bfloat16_as_ushort(__hadd(p, q));
  o[14] = __bfloat16_as_ushort(__hmul(p, q));
  o[15] = __bfloat16_as_ushort(__hfma(p, q, p));
  __nv_bfloat162 bpair = __floats2bfloat162_rn(x, y);
  o[16] = *reinterpret_cast<unsigned*>(&bpair);
  o[17] = __float_as_uint(__half2float(h) + __bfloat162float(q));
  o[18] = (unsigned)__half2int_rn(h) + (unsigned)__half2int_rz(g);
  o[19] = __half_as_ushort(__int2half_rn((int)x)) | __half_as_ushort(__hmax(h, g)) << 16;
}

extern "C" __global__ void convert_kernel(const double* a, long long* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double v = a[i];
  float f = (float)v;
  long long* o = out + (size_t)i * 16;
  o[0] = __float2int_rz(f);
  o[1] = __float2uint_rz(f);
  o[2] = __float2ll_rz(f);
  o[3] = (long long)__float2ull_rz(f);
  o[4] = __double2int_rz(v);
  o[5] = __double2ll_rn(v);
  int r;
  asm("{.reg .s8 t; cvt.rzi.s8.f32 t, %1; cvt.s32.s8 %0, t;}" : "=r"(r) : "f"(f));
  o[6] = r;
  asm("{.reg .u8 t; cvt.sat.u8.s32 t, %1; cvt.u32.u8 %0, t;}" : "=r"(r) : "r"((int)f));
  o[7] = r;
  asm("{.reg .s16 t; cvt.sat.s16.s32 t, %1; cvt.s32.s16 %0, t;}" : "=r"(r) : "r"((int)f));
  o[8] = r;
  o[9] = __float_as_int(__int2float_rz((int)(v * 100))) + (long long)__float_as_int(__ll2float_ru((long long)v));
  o[10] = __float_as_int(__uint2float_rd((unsigned)(int)(v * 77)));
  o[11] = __double_as_longlong(__ll2double_rz((long long)(v * 1e6)));
  o[12] = __float_as_int(__double2float_rd(v));
  o[13] = __float_as_int(__double2float_ru(v));
  o[14] = __float2int_rd(f) + __float2int_ru(f);
  o[15] = __float_as_int(__ull2float_rn((unsigned long long)(v * v)));
}

extern "C" __global__ void warp_kernel(const unsigned* in, unsigned* out) {
  unsigned lane = threadIdx.x & 31, v = in[threadIdx.x];
  unsigned* o = out + threadIdx.x * 16;
  o[0] = __shfl_sync(~0u, v, (lane * 7 + 3) & 31);
  o[1] = __shfl_up_sync(~0u, v, 3);
  o[2] = __shfl_down_sync(~0u, v, 5);
  o[3] = __shfl_xor_sync(~0u, v, 17);
  o[4] = __shfl_down_sync(~0u, v, 2, 8);
  o[5] = __shfl_sync(~0u, v, 3, 16);
  o[6] = __ballot_sync(~0u, v & 1);
  o[7] = __any_sync(~0u, v == 17) | __all_sync(~0u, v < 1000) << 1;
  o[8] = __match_any_sync(~0u, v & 3);
  o[9] = __reduce_add_sync(~0u, v);
  o[10] = __reduce_max_sync(~0u, (int)v - 500);
  o[11] = __reduce_xor_sync(~0u, v);
  unsigned partial = 0;
  if (lane < 12)
    partial = __ballot_sync(0xfffu, v & 2);
  else
    partial = __ballot_sync(~0xfffu, v & 4);
  o[12] = partial;
  o[13] = __activemask();
  int all;
  o[14] = __match_all_sync(~0u, v & 0, &all) + all;
  o[15] = __syncthreads_count(v & 1) + __syncthreads_or(v == 3) * 1000 + __syncthreads_and(v < 5000) * 10000;
}

extern "C" __global__ void atomic_kernel(const int* in, int* sums, float* fsum, double* dsum, unsigned long long* big, int n) {
  __shared__ int s[4];
  if (threadIdx.x < 4) s[threadIdx.x] = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    atomicAdd(&s[0], in[i]);
    atomicMax(&s[1], in[i]);
    atomicOr(&s[2], in[i]);
    atomicXor(&s[3], in[i]);
    atomicAdd(fsum, (float)in[i]);
    atomicAdd(dsum, (double)in[i]);
    atomicAdd(big, (unsigned long long)in[i]);
    atomicMin(&sums[4], in[i]);
    atomicAnd(&sums[5], in[i]);
    int seen;
    do {
      seen = atomicAdd(&sums[7], 0);
    } while (atomicCAS(&sums[7], seen, seen + 3) != seen);
    atomicInc((unsigned*)&sums[8], 9);
    atomicExch(&sums[9], 42);
  }
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&sums[0], s[0]);
  if (threadIdx.x == 1) atomicMax(&sums[1], s[1]);
  if (threadIdx.x == 2) atomicOr(&sums[2], s[2]);
  if (threadIdx.x == 3) atomicXor(&sums[3], s[3]);
}

// one warp a kernel: fragments from row-major A [16][k], column-major B [8][k]
template <class T>
__device__ void mma16(const T* a, const T* b, const float* c, float* d, bool bf) {
  __shared__ T sa[16 * 16], sb[8 * 16];
  for (int i = threadIdx.x; i < 256; i += 32) sa[i] = a[i];
  for (int i = threadIdx.x; i < 128; i += 32) sb[i] = b[i];
  __syncwarp();
  unsigned lane = threadIdx.x, ra[4], rb[2];
  unsigned pa = (unsigned)__cvta_generic_to_shared(&sa[(lane % 16) * 16 + lane / 16 * 8]);
  unsigned pb = (unsigned)__cvta_generic_to_shared(&sb[(lane % 8) * 16 + lane / 8 % 2 * 8]);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3])
               : "r"(pa));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(pb));
  float r[4];
  int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) r[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  if (bf)
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                 : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
                 : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = r[i];
}
extern "C" __global__ void mma_f16_kernel(const __half* a, const __half* b, const float* c, float* d) {
  mma16(a, b, c, d, false);
}
extern "C" __global__ void mma_bf16_kernel(const __nv_bfloat16* a, const __nv_bfloat16* b, const float* c, float* d) {
  mma16(a, b, c, d, true);
}
extern "C" __global__ void mma_f16_k8_kernel(const unsigned* a, const unsigned* b, const float* c, float* d) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;  // a [16][4 words], b [8][4 words]
  float r[4];
  for (int i = 0; i < 4; ++i) r[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(r[0]), "+f"(r[1]), "+f"(r[2]), "+f"(r[3])
               : "r"(a[g * 4 + t]), "r"(a[(g + 8) * 4 + t]), "r"(b[g * 4 + t]));
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = r[i];
}
extern "C" __global__ void mma_f16_acc16_kernel(const unsigned* a, const unsigned* b, unsigned* d) {
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;  // a [16][8 words], b [8][8 words], d [16][4 words]
  unsigned r0 = 0, r1 = 0;
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
               : "+r"(r0), "+r"(r1)
               : "r"(a[g * 8 + t]), "r"(a[(g + 8) * 8 + t]), "r"(a[g * 8 + t + 4]), "r"(a[(g + 8) * 8 + t + 4]),
                 "r"(b[g * 8 + t]), "r"(b[g * 8 + t + 4]));
  d[g * 4 + t] = r0;
  d[(g + 8) * 4 + t] = r1;
}
// a [16][8 words], b [8][8 words]: bits; d [16][8]. Four results: m16n8k256 xor and and, m8n8k128 of the first words, both forms
extern "C" __global__ void mma_b1_kernel(const unsigned* a, const unsigned* b, int* d) {
  int l = threadIdx.x, g = l / 4, t = l % 4;
  unsigned a0 = a[g * 8 + t], a1 = a[(g + 8) * 8 + t], a2 = a[g * 8 + t + 4], a3 = a[(g + 8) * 8 + t + 4], b0 = b[g * 8 + t],
           b1 = b[g * 8 + t + 4];
  int c[4] = {1, 2, 3, 4}, e[4] = {}, f[2] = {}, h[2] = {};
  asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.xor.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(e[0]), "+r"(e[1]), "+r"(e[2]), "+r"(e[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  asm volatile("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(f[0]), "+r"(f[1])
               : "r"(a0), "r"(b0));
  asm volatile("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.and.popc {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+r"(h[0]), "+r"(h[1])
               : "r"(a0), "r"(b0));
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
  for (int i = 0; i < 4; ++i) d[128 + (g + i / 2 * 8) * 8 + 2 * t + i % 2] = e[i];
  for (int i = 0; i < 2; ++i) d[256 + g * 8 + 2 * t + i] = f[i];
  for (int i = 0; i < 2; ++i) d[320 + g * 8 + 2 * t + i] = h[i];
}
extern "C" __global__ void ldmatrix_trans_kernel(const unsigned short* in, unsigned* out) {
  __shared__ unsigned short s[64];
  for (int i = threadIdx.x; i < 64; i += 32) s[i] = in[i];
  __syncwarp();
  unsigned p = (unsigned)__cvta_generic_to_shared(&s[(threadIdx.x % 8) * 8]), r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(p));
  out[threadIdx.x] = r;
}

__device__ int device_counter = 5;
__constant__ float table[4] = {1.5f, -2.0f, 0.25f, 8.0f};
__device__ float device_table[3] = {10.0f, 20.0f, 30.0f};
__device__ __noinline__ float called(float x, int k) { return k > 2 ? x * 2.0f : x + 1.0f; }

// by-value struct, module variables, local array with a run-time index, a switch, generic pointers, a call
extern "C" __global__ void memory_kernel(Args args) {
  extern __shared__ float dynamic[];
  __shared__ float fixed[8];
  int i = threadIdx.x;
  float local[8];
  for (int k = 0; k < 8; ++k) local[k] = args.x[(i + k) % args.count];
  if (i < 8) fixed[i] = (float)i;
  dynamic[i] = args.x[i];
  __syncthreads();
  const float* p = (i & 1) ? fixed + (i & 7) : args.x + i;
  float r = *p + local[args.bytes[i % 5] & 7] + table[i & 3] + device_table[i % 3] + dynamic[blockDim.x - 1 - i];
  switch (args.bytes[i % 5]) {
    case 0: r += 1; break;
    case 1: r *= 3; break;
    case 2: r -= args.small; break;
    case 3: r = r * r; break;
    case 4: r += (float)args.scale; break;
    case 5: r = -r; break;
    case 6: r += 0.5f; break;
    default: r += 100; break;
  }
  r = called(r, i);
  if (i == 0) atomicAdd(&device_counter, 1);
  args.y[i] = r;
}

extern "C" __global__ void vector_kernel(const float4* __restrict__ in, uint2* out, const signed char* bytes, short* shorts) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float4 v = in[i];
  out[i] = make_uint2(__float_as_uint(v.x + v.z), __float_as_uint(v.y * v.w));
  shorts[i] = (short)(bytes[i] * 3);
}

extern "C" __global__ void async_kernel(const float* in, float* out) {
  __shared__ __align__(16) float s[2][256];
  int i = threadIdx.x;
  auto copy = [&](int buffer, int from) {
    unsigned to = (unsigned)__cvta_generic_to_shared(&s[buffer][i * 4]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(in + from + i * 4));
    asm volatile("cp.async.commit_group;");
  };
  copy(0, 0);
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    if (k < 3) {
      copy((k + 1) & 1, (k + 1) * 256);
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    sum += s[k & 1][(i * 5) & 255] - s[k & 1][255 - i];
    __syncthreads();
  }
  unsigned to = (unsigned)__cvta_generic_to_shared(&s[0][i]);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(in + i), "r"(i & 1 ? 4 : 0));
  asm volatile("cp.async.wait_all;");
  out[i] = sum + s[0][i];
}

// named barriers: warp 0 produces, warp 1 consumes
extern "C" __global__ void named_barrier_kernel(const int* in, int* out) {
  __shared__ int s[32];
  int lane = threadIdx.x & 31;
  if (threadIdx.x < 32) {
    s[lane] = in[lane] * 2;
    asm volatile("bar.arrive 1, 64;" ::: "memory");
  } else {
    asm volatile("bar.sync 1, 64;" ::: "memory");
    out[lane] = s[31 - lane];
  }
}
// each block writes a partial sum, the last one adds them in order
extern "C" __global__ void last_block_kernel(const float* in, float* partial, unsigned* done, float* out) {
  __shared__ float s[64];
  __shared__ bool last;
  s[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  for (int o = 32; o; o >>= 1) {
    if (threadIdx.x < o) s[threadIdx.x] += s[threadIdx.x + o];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = s[0];
    __threadfence();
    last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    __threadfence();
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
    *out = sum;
  }
}
// divergent loops and nested branches
extern "C" __global__ void divergent_kernel(const int* in, int* out) {
  int i = threadIdx.x, v = in[i], steps = 0;
  while (v != 1 && steps < 200) {
    if (v & 1)
      v = 3 * v + 1;
    else
      v >>= 1;
    ++steps;
  }
  out[i] = steps;
}
// what a speed test needs: 32-bit integer work with a load now and then
extern "C" __global__ void speed_kernel(const unsigned* __restrict__ x, const unsigned* __restrict__ w, int* out, int words,
                                        int filters) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int k = 0; k < filters; ++k) {
    int sum = 0;
    for (int c = 0; c < words; ++c) sum += __popc(x[i * words + c] ^ w[k * words + c]);
    out[(size_t)i * filters + k] = 32 * words - 2 * sum;
  }
}
