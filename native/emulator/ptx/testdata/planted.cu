// One planted bug a kernel; the line that must be named carries a comment with what is wrong. Sound counterparts follow.
#include <cstdint>

extern "C" __global__ void missing_barrier_kernel(float* o) {
  __shared__ float s[256];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = o[threadIdx.x];        // EXPECT shared memory race
  o[threadIdx.x] = s[255 - threadIdx.x];  // EXPECT shared memory race
}
extern "C" __global__ void missing_second_barrier_kernel(float* o) {
  __shared__ float s[256];
  float a = 0;
  for (int t = 0; t < 3; ++t) {
    s[threadIdx.x] = o[threadIdx.x] + t;  // EXPECT shared memory race
    __syncthreads();
    for (int i = 0; i < 8; ++i) a += s[(threadIdx.x + i * 37) & 255];  // EXPECT shared memory race
  }
  o[threadIdx.x] = a;
}
extern "C" __global__ void write_write_kernel(float* o) {
  __shared__ float s[128];
  s[threadIdx.x & 127] = o[threadIdx.x];  // EXPECT shared memory race
  __syncthreads();
  o[threadIdx.x] = s[threadIdx.x & 127];
}
extern "C" __global__ void missing_syncwarp_kernel(float* o) {
  __shared__ float s[256];
  s[threadIdx.x] = o[threadIdx.x];
  o[threadIdx.x] = s[threadIdx.x ^ 1];  // EXPECT shared memory race
}
extern "C" __global__ void global_race_kernel(float* o) {
  o[threadIdx.x] = threadIdx.x;  // EXPECT global memory race
  o[threadIdx.x + 1] = 2;        // EXPECT global memory race
}
extern "C" __global__ void block_race_kernel(float* o) {
  o[blockIdx.x * 128 + threadIdx.x] = 1;  // EXPECT race between blocks
}
extern "C" __global__ void block_read_race_kernel(float* o) {
  if (blockIdx.x == 0)
    o[threadIdx.x] = 1;  // EXPECT race between blocks
  else
    o[threadIdx.x + 512] = o[threadIdx.x];  // EXPECT race between blocks
}
extern "C" __global__ void missing_fence_kernel(float* o, unsigned* done) {
  if (threadIdx.x == 0) {
    o[blockIdx.x] = 1;  // EXPECT race between blocks
    if (atomicAdd(done, 1u) == gridDim.x - 1)
      for (unsigned b = 0; b < gridDim.x; ++b) o[600] += o[b];  // EXPECT race between blocks
  }
}
extern "C" __global__ void atomic_and_plain_kernel(int* o) {
  atomicAdd(&o[0], 1);              // EXPECT global memory race
  if (threadIdx.x == 77) o[0] = 5;  // EXPECT global memory race
}
extern "C" __global__ void shared_overrun_kernel(float* o, int shift) {
  __shared__ float s[256];
  s[threadIdx.x + shift] = o[threadIdx.x];  // EXPECT out of bounds
  __syncthreads();
  o[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void global_overrun_kernel(float* o, int shift) {
  o[threadIdx.x + 1024 * shift] = 1;  // EXPECT out of bounds
}
extern "C" __global__ void misaligned_kernel(float* o, int shift) {
  float4 v = *reinterpret_cast<float4*>(o + 4 * threadIdx.x + shift);  // EXPECT misaligned access
  o[threadIdx.x] = v.x + v.y + v.z + v.w;
}
extern "C" __global__ void uninitialised_shared_kernel(float* o) {
  __shared__ float s[257];
  s[threadIdx.x] = o[threadIdx.x];
  __syncthreads();
  o[threadIdx.x] = s[threadIdx.x + 1];  // EXPECT uninitialised read
}
extern "C" __global__ void uninitialised_global_kernel(float* o) {
  o[threadIdx.x] = o[threadIdx.x + 513];  // EXPECT uninitialised read
}
extern "C" __global__ void wrong_mask_kernel(float* o) {
  float v = o[threadIdx.x];
  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xfffffff0u, v, 1);  // EXPECT wrong mask
  o[threadIdx.x] = v;
}
extern "C" __global__ void other_lanes_wait_kernel(float* o) {
  float v = o[threadIdx.x];
  if (threadIdx.x % 32 < 16) v += __shfl_xor_sync(~0u, v, 1);  // EXPECT wrong mask
  __syncthreads();
  o[threadIdx.x] = v;
}
extern "C" __global__ void inactive_lane_kernel(float* o) {
  float v = o[threadIdx.x];
  if (threadIdx.x % 32 < 16) v = __shfl_sync(0xffffu, v, 20);  // EXPECT inactive lane
  o[threadIdx.x] = v;
}
extern "C" __global__ void divergent_barrier_kernel(float* o) {
  if (threadIdx.x < 100) {
    o[threadIdx.x] = 1;
    __syncthreads();  // EXPECT divergent barrier
    o[threadIdx.x] += 1;
  }
}
extern "C" __global__ void divergent_warps_kernel(float* o) {
  if (threadIdx.x < 64) {
    o[threadIdx.x] = 1;
    __syncthreads();  // EXPECT divergent barrier
    o[threadIdx.x] += 1;
  }
}
extern "C" __global__ void missing_wait_kernel(float* o) {
  __shared__ __align__(16) float s[256];
  unsigned to = (unsigned)__cvta_generic_to_shared(&s[threadIdx.x]);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(o + threadIdx.x));
  asm volatile("cp.async.commit_group;");
  o[threadIdx.x + 256] = s[threadIdx.x];  // EXPECT asynchronous copy
}
extern "C" __global__ void wrong_group_kernel(float* o) {
  __shared__ __align__(16) float s[256];
  unsigned to = (unsigned)__cvta_generic_to_shared(&s[threadIdx.x]);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(o + threadIdx.x));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.wait_group 1;");
  o[threadIdx.x + 256] = s[threadIdx.x];  // EXPECT asynchronous copy
}
extern "C" __global__ void copy_without_barrier_kernel(float* o) {
  __shared__ __align__(16) float s[256];
  unsigned to = (unsigned)__cvta_generic_to_shared(&s[threadIdx.x]);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(o + threadIdx.x));
  asm volatile("cp.async.wait_all;");         // EXPECT shared memory race
  o[threadIdx.x + 256] = s[threadIdx.x ^ 1];  // EXPECT shared memory race
}
extern "C" __global__ void non_coherent_kernel(const float* __restrict__ x, float* y) {
  y[threadIdx.x] = 3;
  __syncthreads();
  y[threadIdx.x + 256] = x[threadIdx.x];  // EXPECT non-coherent read
}
extern "C" __global__ void endless_kernel(volatile int* o) {
  while (o[0] != 12345) {  // EXPECT runaway kernel
  }
}
extern "C" __global__ void local_overrun_kernel(float* o, int shift) {
  float local[8];
  for (int i = 0; i < 8; ++i) local[i] = o[i];
  o[threadIdx.x] = local[(threadIdx.x & 7) + 100 * shift];  // EXPECT out of bounds
}
extern "C" __global__ void trap_kernel(float* o) {
  if (o[0] >= 0) __trap();  // EXPECT trap
}
__constant__ float constants[4] = {1, 2, 3, 4};
extern "C" __global__ void constant_overrun_kernel(float* o, int shift) {
  o[threadIdx.x] = constants[(threadIdx.x & 3) + 4 * shift];  // EXPECT out of bounds
}

// ---- sound

extern "C" __global__ void sound_tile_kernel(float* o) {
  __shared__ float s[256];
  float a = 0;
  for (int t = 0; t < 3; ++t) {
    s[threadIdx.x] = o[threadIdx.x] + t;
    __syncthreads();
    for (int i = 0; i < 8; ++i) a += s[(threadIdx.x + i * 37) & 255];
    __syncthreads();
  }
  o[threadIdx.x] = a;
}
extern "C" __global__ void sound_broadcast_kernel(float* o) {
  __shared__ float s;
  if (threadIdx.x == 0) s = o[0];
  __syncthreads();
  o[threadIdx.x + 256] = s;
  __syncthreads();
  if (threadIdx.x == 5) s = 3;
  __syncthreads();
  o[threadIdx.x] = s;
}
extern "C" __global__ void sound_warp_kernel(float* o) {
  __shared__ float s[256];
  s[threadIdx.x] = o[threadIdx.x];
  __syncwarp();
  float v = s[threadIdx.x ^ 1];
  __syncwarp();
  s[threadIdx.x] = v + 1;
  __syncthreads();
  o[threadIdx.x] = s[255 - threadIdx.x];
}
extern "C" __global__ void sound_bytes_kernel(unsigned char* o) {
  __shared__ unsigned char s[256];
  s[threadIdx.x] = o[threadIdx.x];
  o[threadIdx.x] = s[threadIdx.x] + 1;
}
extern "C" __global__ void sound_half_warp_kernel(float* o) {
  __shared__ float s[256];
  unsigned lane = threadIdx.x & 31, mask = lane < 16 ? 0xffffu : 0xffff0000u;
  s[threadIdx.x] = o[threadIdx.x];
  __syncwarp(mask);
  o[threadIdx.x] = s[threadIdx.x ^ 3];
}
// conflicts of known degree: column reads of a 32-wide array, and the padded one
extern "C" __global__ void bank_conflict_kernel(float* o) {
  __shared__ float bad[32 * 32], good[32 * 33];
  int lane = threadIdx.x;
  for (int i = 0; i < 32; ++i) bad[i * 32 + lane] = good[i * 33 + lane] = o[i * 32 + lane];
  __syncwarp();
  float a = 0;
  for (int i = 0; i < 32; ++i) a += bad[lane * 32 + i];  // DEGREE 32
  float b = 0;
  for (int i = 0; i < 32; ++i) b += good[lane * 33 + i];  // DEGREE 1
  o[lane] = a + b;
}
extern "C" __global__ void coalescing_kernel(const float* x, float* y) {
  int i = threadIdx.x;
  float a = x[i];      // SECTORS 4
  float b = x[i * 8];  // SECTORS 32
  float c = x[0];      // SECTORS 1
  y[i] = a + b + c;    // SECTORS 4
}
