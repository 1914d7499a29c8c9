// Kernels for measurements, which no search uses: they generate the rows of synthetic.rs, and measure
// the peak rates of a device.

#define BLOCK_THREADS 256

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

__device__ __forceinline__ u64 draw(u64 seed, u64 row, u64 index) {
  u64 mixed = seed + ((row << 20) | index) * 0x9e3779b97f4a7c15ull;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
  return mixed ^ (mixed >> 31);
}

struct Halves {
  static const u32 NUMBERS = 8;
  // Returns the nearest half; the conversion is exact here.
  __device__ __forceinline__ static u32 number(u32 bits) {
    u16 half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(((float)(bits >> 5) - 1024.0f) / 1024.0f));
    return half;
  }
  __device__ __forceinline__ static void scale(float *, u64, u64) {}
  __device__ __forceinline__ static void multiply(float (&sums)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, "
        "{%4, %4}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(0));
  }
  typedef float Sum;
};

struct Bytes {
  static const u32 NUMBERS = 16;
  __device__ __forceinline__ static u32 number(u32 bits) {
    const int byte = (signed char)(bits >> 8);
    return (u32)(byte < -127 ? -127 : byte) & 0xff;
  }
  __device__ __forceinline__ static void scale(float *scales, u64 seed, u64 row) {
    scales[row] = (16.0f + (float)(draw(seed, row, (1 << 20) - 1) & 15)) / (16.0f * 128.0f);
  }
  __device__ __forceinline__ static void multiply(int (&sums)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, "
        "{%4, %4}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(0));
  }
  typedef int Sum;
};

#ifndef FORMAT
#define FORMAT Halves
#endif

// Generates rows. A thread makes 16 bytes at a time.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    fill(uint4 *rows, float *scales, u64 seed, u64 count, u32 dimension, u32 pitch) {
  const u64 chunks = pitch / 16;
  const u64 threads = (u64)gridDim.x * blockDim.x;
  const u32 bits = 128 / FORMAT::NUMBERS;
  for (u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x; index < count * chunks; index += threads) {
    const u64 row = index / chunks;
    const u32 first = (u32)(index % chunks) * FORMAT::NUMBERS;
    u64 packed[2] = {0, 0};
    for (u32 number = 0; number < FORMAT::NUMBERS; ++number) {
      const u32 position = first + number;
      if (position >= dimension) break;
      const u64 drawn = draw(seed, row, position / 4);
      const u64 number_bits = FORMAT::number((u32)(drawn >> (16 * (position % 4))) & 0xffff);
      packed[number * bits / 64] |= number_bits << (number * bits % 64);
    }
    rows[index] = make_uint4((u32)packed[0], (u32)(packed[0] >> 32), (u32)packed[1], (u32)(packed[1] >> 32));
    if (first == 0) FORMAT::scale(scales, seed, row);
  }
}

// Reads all rows once. The write to `out` keeps the compiler from removing the reads.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    read(const uint4 *rows, u64 chunks, u32 rounds, u32 *out) {
  const u64 threads = (u64)gridDim.x * blockDim.x;
  u32 folded = 0;
#pragma unroll 8
  for (u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x; index < chunks; index += threads) {
    const uint4 chunk = rows[index];
    folded ^= chunk.x ^ chunk.y ^ chunk.z ^ chunk.w;
  }
  // Never true, but the compiler cannot know that.
  if (folded == rounds && chunks == 0) *out = folded;
}

// Multiplies matrices in registers: in each round, 8 products that do not depend on each other.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    multiply(const uint4 *rows, u64 chunks, u32 rounds, u32 *out) {
  FORMAT::Sum sums[8][4] = {};
  for (u32 round = 0; round < rounds; ++round) {
#pragma unroll
    for (int sum = 0; sum < 8; ++sum) FORMAT::multiply(sums[sum]);
  }
  FORMAT::Sum folded = 0;
  for (int sum = 0; sum < 8; ++sum) folded += sums[sum][0] + sums[sum][3];
  if (folded != 0) *out = (u32)chunks;
}
