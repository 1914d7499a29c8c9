// Exact search on one device. It is compiled at run time for the device's architecture and needs no
// header, only NVRTC. The tests also run this text on the processor (`emulated.h`).
//
// Rows and queries have the same format: PITCH bytes each, a multiple of SLAB_BYTES, padded with
// zeros; the numbers are halves or signed bytes. A key packs a score and its row so that the better
// hit has the greater key; 0 is not a key. Each query has a list of LIST_KEYS keys, which begins
// with its `kept` best so far, and a threshold: keys at or below it are no longer needed.

// `shape.rs` has the same numbers; a test compares them.
#define LIST_KEYS 4096
#define TILE_ROWS 128
#define SLAB_BYTES 128
#define STAGES 3
#define BLOCK_THREADS 256
#define CUT_THREADS 1024

// The number of rows that a warp streams at a time.
#define STREAM_ROWS 4

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define FULL_WARP 0xffffffffu
#define WARP_LANES 32
// The bytes of one load.
#define CHUNK_BYTES 16
#define SLAB_CHUNKS (SLAB_BYTES / CHUNK_BYTES)

// Instructions that C++ cannot express. For the tests, `emulated.h` has them in plain C++.
#ifdef EMULATED
#include "emulated.h"
#else
__device__ __forceinline__ uint4 load_chunk(const unsigned char *from) {
  uint4 chunk;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(chunk.x), "=r"(chunk.y), "=r"(chunk.z), "=r"(chunk.w)
               : "l"(from));
  return chunk;
}

__device__ __forceinline__ void widen(u32 halves, float &low, float &high) {
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}"
      : "=f"(low), "=f"(high)
      : "r"(halves));
}

// Computes D = A * B + D for 16 rows and 8 queries, over 32 bytes of each.
__device__ __forceinline__ void multiply_halves(float (&sums)[4], const u32 (&rows)[4], u32 query0,
                                                u32 query1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(query0), "r"(query1));
}

__device__ __forceinline__ void multiply_bytes(int (&sums)[4], const u32 (&rows)[4], u32 query0,
                                               u32 query1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(rows[0]), "r"(rows[1]), "r"(rows[2]), "r"(rows[3]), "r"(query0), "r"(query1));
}

// Adds four products of bytes.
__device__ __forceinline__ int multiply_four(int sum, u32 left, u32 right) {
  asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(left), "r"(right));
  return sum;
}

__device__ __forceinline__ u32 shared_address(const void *pointer) {
  return (u32)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void copy_chunk(u32 to_shared, const unsigned char *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to_shared), "l"(from) : "memory");
}

__device__ __forceinline__ void load_fragments(u32 (&fragments)[4], u32 from_shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(from_shared)
               : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING groups are unfinished.
template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}
#endif

// The argument of a launch.
struct Phase {
  const unsigned char *rows;
  // One factor for each row of bytes; not used for halves.
  const float *scales;
  const unsigned char *queries;
  u64 *lists;
  u32 *counts;
  const u64 *thresholds;
  // The number of the phase in which a list overflowed; 0 if none has.
  u32 *overflow;
  u32 pitch;
  u32 first;
  u32 end;
  u32 query_count;
  u32 number;
};

__device__ __forceinline__ u64 make_key(float score, u32 row) {
  // -0 becomes 0, because their keys would differ.
  u32 bits = __float_as_uint(score + 0.0f);
  u32 ordered = (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
  return ((u64)ordered << 32) | (u32)~row;
}

// The score below which no key passes the threshold: a cheap test before the exact one.
__device__ __forceinline__ float score_floor(u64 threshold) {
  if (threshold == 0) return __uint_as_float(0xff800000u);
  u32 ordered = (u32)(threshold >> 32);
  return __uint_as_float((ordered & 0x80000000u) ? (ordered & 0x7fffffffu) : ~ordered);
}

// Appends the key if it passes the threshold. A full list marks the phase, which is then repeated.
__device__ __forceinline__ void offer(const Phase &phase, float score, u32 row, u32 query,
                                      u64 threshold) {
  // A score whose exponent has all bits set is not finite.
  if ((__float_as_uint(score) & 0x7f800000u) == 0x7f800000u) return;
  u64 key = make_key(score, row);
  if (key <= threshold) return;
  u32 slot = atomicAdd(&phase.counts[query], 1u);
  if (slot < LIST_KEYS) {
    phase.lists[(u64)query * LIST_KEYS + slot] = key;
  } else {
    *phase.overflow = phase.number;
  }
}

struct Halves {
  typedef float Sum;
  struct Chunk { float numbers[8]; };
  __device__ __forceinline__ static Chunk open(uint4 chunk) {
    Chunk opened;
    widen(chunk.x, opened.numbers[0], opened.numbers[1]);
    widen(chunk.y, opened.numbers[2], opened.numbers[3]);
    widen(chunk.z, opened.numbers[4], opened.numbers[5]);
    widen(chunk.w, opened.numbers[6], opened.numbers[7]);
    return opened;
  }
  __device__ __forceinline__ static float add(float sum, const Chunk &left, const Chunk &right) {
#pragma unroll
    for (int number = 0; number < 8; ++number)
      sum = __fmaf_rn(left.numbers[number], right.numbers[number], sum);
    return sum;
  }
  // Adds the products of 16 rows and 8 queries, over 32 bytes of each.
  __device__ __forceinline__ static void multiply(float (&sums)[4], const u32 (&rows)[4], u32 query0,
                                                  u32 query1) {
    multiply_halves(sums, rows, query0, query1);
  }
  __device__ __forceinline__ static float score(float sum, const float *, u32) { return sum; }
};

struct Bytes {
  typedef int Sum;
  typedef uint4 Chunk;
  __device__ __forceinline__ static Chunk open(uint4 chunk) { return chunk; }
  __device__ __forceinline__ static int add(int sum, const Chunk &left, const Chunk &right) {
    sum = multiply_four(multiply_four(sum, left.x, right.x), left.y, right.y);
    return multiply_four(multiply_four(sum, left.z, right.z), left.w, right.w);
  }
  __device__ __forceinline__ static void multiply(int (&sums)[4], const u32 (&rows)[4], u32 query0,
                                                  u32 query1) {
    multiply_bytes(sums, rows, query0, query1);
  }
  __device__ __forceinline__ static float score(int sum, const float *scales, u32 row) {
    return (float)sum * scales[row];
  }
};

// Searches for up to QUERIES queries. A warp takes STREAM_ROWS rows at a time, and each lane every
// 32nd chunk of them. Each row is read once, so the bandwidth of the memory is the limit.
template <typename Format, int QUERIES>
__device__ __forceinline__ void stream(const Phase &phase) {
  // Another block may be setting it right now, so all lanes of the warp decide together.
  if (__any_sync(FULL_WARP, *phase.overflow != 0)) return;
  const u32 lane = threadIdx.x % WARP_LANES;
  const u32 warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_LANES;
  const u32 warps = gridDim.x * blockDim.x / WARP_LANES;
  const u32 chunks = phase.pitch / CHUNK_BYTES;
  const u32 own_row = lane / QUERIES, own_query = lane % QUERIES;
  const bool owns = own_row < STREAM_ROWS && own_query < phase.query_count;
  const u64 threshold = owns ? phase.thresholds[own_query] : 0;
  const u32 groups = (phase.end - phase.first + STREAM_ROWS - 1) / STREAM_ROWS;
  for (u32 group = warp; group < groups; group += warps) {
    const u32 row = phase.first + group * STREAM_ROWS;
    const unsigned char *starts[STREAM_ROWS];
#pragma unroll
    for (int r = 0; r < STREAM_ROWS; ++r) {
      // Past the end the last row is read instead; its extra sums are not offered.
      const u32 source = row + r < phase.end ? row + r : phase.end - 1;
      starts[r] = phase.rows + (u64)source * phase.pitch;
    }
    // Over the chunks of this lane: all rows are loaded first, so that their loads overlap, and
    // then each query's chunk is multiplied with all of them.
    typename Format::Sum sums[STREAM_ROWS][QUERIES] = {};
#pragma unroll (QUERIES < 8 ? 2 : 1)
    for (u32 chunk = lane; chunk < chunks; chunk += WARP_LANES) {
      uint4 raw[STREAM_ROWS];
#pragma unroll
      for (int r = 0; r < STREAM_ROWS; ++r) raw[r] = load_chunk(starts[r] + chunk * CHUNK_BYTES);
      typename Format::Chunk opened[STREAM_ROWS];
#pragma unroll
      for (int r = 0; r < STREAM_ROWS; ++r) opened[r] = Format::open(raw[r]);
#pragma unroll
      for (int q = 0; q < QUERIES; ++q) {
        const typename Format::Chunk query =
            Format::open(load_chunk(phase.queries + q * phase.pitch + chunk * CHUNK_BYTES));
#pragma unroll
        for (int r = 0; r < STREAM_ROWS; ++r) sums[r][q] = Format::add(sums[r][q], opened[r], query);
      }
    }
    // Adds up the sums of the lanes. Lane r * QUERIES + q keeps the total of row r and query q.
    typename Format::Sum own = 0;
#pragma unroll
    for (int r = 0; r < STREAM_ROWS; ++r) {
#pragma unroll
      for (int q = 0; q < QUERIES; ++q) {
        typename Format::Sum sum = sums[r][q];
#pragma unroll
        for (int apart = WARP_LANES / 2; apart > 0; apart /= 2)
          sum += __shfl_xor_sync(FULL_WARP, sum, apart);
        if (lane == r * QUERIES + q) own = sum;
      }
    }
    if (owns && row + own_row < phase.end)
      offer(phase, Format::score(own, phase.scales, row + own_row), row + own_row, own_query, threshold);
  }
}

// Returns the offset of a chunk in a stage. A stage holds SLAB_BYTES of each of its lines. Chunk c of
// line l is at position c ^ (l % 8), so neither the copies into the stage nor the loads of fragments
// conflict in a bank.
__device__ __forceinline__ u32 stage_offset(u32 line, u32 chunk) {
  return line * SLAB_BYTES + ((chunk ^ (line % SLAB_CHUNKS)) * CHUNK_BYTES);
}

// Searches for up to QUERIES queries on tensor cores. A block moves TILE_ROWS rows at a time through
// shared memory. Each stage holds SLAB_BYTES of every row of the tile and of every query, and the
// sums of the whole tile stay in registers. The warps divide a tile into WARPS_DOWN parts along the
// rows and WARPS_ACROSS parts along the queries.
template <typename Format, int QUERIES, int WARPS_DOWN, int WARPS_ACROSS>
__device__ __forceinline__ void tiles(const Phase &phase) {
  constexpr int THREADS = BLOCK_THREADS;
  constexpr int LINES = TILE_ROWS + QUERIES;
  constexpr u32 STAGE_BYTES = LINES * SLAB_BYTES;
  constexpr int DOWN = TILE_ROWS / WARPS_DOWN / 16;
  constexpr int ACROSS = QUERIES / WARPS_ACROSS / 8;
  static_assert(WARPS_DOWN * WARPS_ACROSS * WARP_LANES == THREADS, "every warp has a part");
  static_assert(DOWN * WARPS_DOWN * 16 == TILE_ROWS && ACROSS * WARPS_ACROSS * 8 == QUERIES, "whole");
  static_assert(ACROSS % 2 == 0 && LINES * SLAB_CHUNKS % THREADS == 0, "pairs, and equal shares");
  extern __shared__ __align__(128) unsigned char stages[];
  // Another block may be setting it right now, so all threads of the block decide together.
  if (__syncthreads_or(*phase.overflow != 0)) return;

  const u32 lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
  const u32 down = warp / WARPS_ACROSS * (DOWN * 16), across = warp % WARPS_ACROSS * (ACROSS * 8);
  const u32 shared = shared_address(stages);
  const u32 slabs = phase.pitch / SLAB_BYTES;
  const u32 tile_count = (phase.end - phase.first + TILE_ROWS - 1) / TILE_ROWS;

  // A step is one slab of one tile. The steps of all tiles of this block form one sequence, so that
  // the copies for a tile begin while the previous tile is still being multiplied.
  const u32 own_tiles = blockIdx.x < tile_count ? (tile_count - blockIdx.x - 1) / gridDim.x + 1 : 0;
  const u32 steps = own_tiles * slabs;

  auto first_row = [&](u32 step) {
    return phase.first + (blockIdx.x + step / slabs * gridDim.x) * TILE_ROWS;
  };
  auto fetch = [&](u32 step) {
    const u32 stage = shared + step % STAGES * STAGE_BYTES;
    const u32 first = first_row(step), offset = step % slabs * SLAB_BYTES;
#pragma unroll
    for (int share = 0; share < LINES * SLAB_CHUNKS / THREADS; ++share) {
      const u32 index = share * THREADS + threadIdx.x;
      const u32 line = index / SLAB_CHUNKS, chunk = index % SLAB_CHUNKS;
      const unsigned char *from;
      if (line < TILE_ROWS) {
        // Past the end the last row is copied instead; its extra sums are not offered.
        const u32 row = first + line < phase.end ? first + line : phase.end - 1;
        from = phase.rows + (u64)row * phase.pitch;
      } else {
        from = phase.queries + (u64)(line - TILE_ROWS) * phase.pitch;
      }
      copy_chunk(stage + stage_offset(line, chunk), from + offset + chunk * CHUNK_BYTES);
    }
  };

  typename Format::Sum sums[DOWN][ACROSS][4] = {};
  // Every step commits one group of copies, even an empty one past the end, so that the number of
  // pending groups is always the same.
#pragma unroll
  for (u32 step = 0; step < STAGES - 1; ++step) {
    if (step < steps) fetch(step);
    commit_copies();
  }
  for (u32 step = 0; step < steps; ++step) {
    wait_for_copies<STAGES - 2>();
    // Now all threads see this stage, and no thread still reads the stage that is filled next.
    __syncthreads();
    if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
    commit_copies();

    // Over the slab in steps of 32 bytes: loads the fragments of all rows of this warp once, and
    // multiplies each pair of query fragments with all of them.
    const u32 stage = shared + step % STAGES * STAGE_BYTES;
#pragma unroll
    for (u32 chunk = 0; chunk < SLAB_CHUNKS; chunk += 2) {
      // Lanes 0 to 7 give the lines of the first matrix, lanes 8 to 15 those of the second, and so on.
      u32 rows[DOWN][4];
#pragma unroll
      for (int d = 0; d < DOWN; ++d)
        load_fragments(rows[d], stage + stage_offset(down + d * 16 + lane % 16, chunk + lane / 16));
#pragma unroll
      for (int a = 0; a < ACROSS; a += 2) {
        u32 queries[4];
        const u32 line = TILE_ROWS + across + a * 8 + lane % 8 + lane / 16 * 8;
        load_fragments(queries, stage + stage_offset(line, chunk + lane / 8 % 2));
#pragma unroll
        for (int d = 0; d < DOWN; ++d) {
          Format::multiply(sums[d][a], rows[d], queries[0], queries[1]);
          Format::multiply(sums[d][a + 1], rows[d], queries[2], queries[3]);
        }
      }
    }
    if (step % slabs != slabs - 1) continue;

    // After the last slab of a tile: over this lane's queries, and for each over its rows, so that
    // a threshold is loaded once. Compares the sums and clears them for the next tile.
    const u32 corner = first_row(step) + down + lane / 4;
#pragma unroll
    for (int a = 0; a < ACROSS; ++a) {
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const u32 query = across + a * 8 + lane % 4 * 2 + column;
        const bool asked = query < phase.query_count;
        const u64 threshold = asked ? phase.thresholds[query] : 0;
        const float floor = score_floor(threshold);
#pragma unroll
        for (int d = 0; d < DOWN; ++d) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const u32 row = corner + d * 16 + half * 8;
            typename Format::Sum &sum = sums[d][a][half * 2 + column];
            if (asked && row < phase.end) {
              const float score = Format::score(sum, phase.scales, row);
              if (score >= floor) offer(phase, score, row, query, threshold);
            }
            sum = 0;
          }
        }
      }
    }
  }
}

// Sorts a query's list, keeps its first `keep` keys, and raises its threshold; one block for each
// query. A phase that overflowed is repeated, so its keys are dropped. They are true hits, however, so
// the threshold may rise to just below the last of the best `keep`.
extern "C" __global__ void __launch_bounds__(CUT_THREADS)
    cut_lists(u64 *lists, u32 *counts, u32 *kept, u64 *thresholds, const u32 *overflow, u64 *results,
              u32 keep) {
  __shared__ u64 keys[LIST_KEYS];
  const u32 query = blockIdx.x;
  u64 *list = lists + (u64)query * LIST_KEYS;
  const u32 count = counts[query] < LIST_KEYS ? counts[query] : LIST_KEYS;
  u32 size = 1;
  while (size < count) size *= 2;
  for (u32 index = threadIdx.x; index < size; index += blockDim.x)
    keys[index] = index < count ? list[index] : 0;
  __syncthreads();
  // A bitonic sort in place: over runs of growing length, and in each over halving distances.
  for (u32 run = 2; run <= size; run *= 2) {
    for (u32 apart = run / 2; apart > 0; apart /= 2) {
      for (u32 index = threadIdx.x; index < size; index += blockDim.x) {
        const u32 other = index ^ apart;
        if (other > index) {
          const u64 left = keys[index], right = keys[other];
          const bool descending = (index & run) == 0;
          if (descending ? left < right : left > right) {
            keys[index] = right;
            keys[other] = left;
          }
        }
      }
      __syncthreads();
    }
  }
  const bool full = count >= keep;
  if (*overflow != 0) {
    if (threadIdx.x == 0) {
      counts[query] = kept[query];
      if (full && keys[keep - 1] - 1 > thresholds[query]) thresholds[query] = keys[keep - 1] - 1;
    }
    return;
  }
  const u32 remaining = full ? keep : count;
  for (u32 index = threadIdx.x; index < keep; index += blockDim.x) {
    const u64 key = index < remaining ? keys[index] : 0;
    if (index < remaining) list[index] = key;
    results[(u64)query * keep + index] = key;
  }
  if (threadIdx.x == 0) {
    counts[query] = remaining;
    kept[query] = remaining;
    if (full && keys[keep - 1] > thresholds[query]) thresholds[query] = keys[keep - 1];
  }
}

// Halves or Bytes, set by an option of the compiler, because a device holds rows of one format.
#ifndef FORMAT
#define FORMAT Halves
#endif

#define STREAM(QUERIES)                                                            \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                      \
      stream_##QUERIES(const __grid_constant__ Phase phase) {                      \
    stream<FORMAT, QUERIES>(phase);                                                \
  }
#define TILES(QUERIES, DOWN, ACROSS)                                               \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                      \
      tiles_##QUERIES(const __grid_constant__ Phase phase) {                       \
    tiles<FORMAT, QUERIES, DOWN, ACROSS>(phase);                                   \
  }

STREAM(1)
STREAM(2)
STREAM(4)
STREAM(8)
TILES(32, 4, 2)
TILES(64, 4, 2)
TILES(128, 2, 4)
TILES(256, 2, 4)
