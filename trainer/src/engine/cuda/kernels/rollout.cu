// The parts of a rollout's pass that are not matrix products. Compiled at run time for the device's architecture,
// without any header, and for the model's shape:
//
// NUMBER_IS_BF16  1 if activations and the cache are bf16, 0 if they are f32; all sums are f32
// HEAD_DIM        numbers of a head
// GROUP           query heads that share a key/value head
//
// Each kernel takes one structure. `arguments.rs` has the same structures, and a test compares their sizes.
// Addresses are numbers of 64 bits. Rows are those of the pass.

// `arguments.rs` has the same constants; a test compares them.
#define BLOCK_THREADS 128
#define DRAW_THREADS 256
#define BLOCK_TOKENS 32
#define SLICE_TOKENS 1024
#define SLICES_MAX 512

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#ifdef EMULATED
#include "device.h"
#endif

#define FULL_WARP 0xffffffffu
#define WARP_LANES 32
#define BLOCK_WARPS (BLOCK_THREADS / WARP_LANES)
#define MINUS_INFINITY __uint_as_float(0xff800000u)
// Numbers of a head that one lane holds.
#define LANE_DIMS ((HEAD_DIM + WARP_LANES - 1) / WARP_LANES)

#if NUMBER_IS_BF16
typedef u16 Number;
__device__ __forceinline__ float widen(Number number) { return __uint_as_float((u32)number << 16); }
// Rounds to the nearest, ties to even.
__device__ __forceinline__ Number narrow(float value) {
  const u32 bits = __float_as_uint(value);
  if (value != value) return 0x7fc0;
  return (Number)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#else
typedef float Number;
__device__ __forceinline__ float widen(Number number) { return number; }
__device__ __forceinline__ Number narrow(float value) { return value; }
#endif

// The numbers that one load of a key reads: 16 bytes if heads are that wide, otherwise one number.
#define NUMBER_BYTES (NUMBER_IS_BF16 ? 2 : 4)
#if HEAD_DIM * NUMBER_BYTES % 16 == 0
typedef uint4 ChunkWords;
#define CHUNK_NUMBERS (16 / NUMBER_BYTES)
#else
typedef Number ChunkWords;
#define CHUNK_NUMBERS 1
#endif
union Chunk {
  ChunkWords words;
  Number numbers[CHUNK_NUMBERS];
};

// All lanes get the result. The lanes are paired at halving distances, so the order of the sum is fixed.
__device__ __forceinline__ float sum_of_warp(float value) {
  for (int apart = WARP_LANES / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(FULL_WARP, value, apart);
  return value;
}
__device__ __forceinline__ float max_of_warp(float value) {
  for (int apart = WARP_LANES / 2; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(FULL_WARP, value, apart);
    value = other > value ? other : value;
  }
  return value;
}
// All threads get the result: the warps' sums, added in their order.
__device__ __forceinline__ float sum_of_block(float value) {
  __shared__ float parts[BLOCK_WARPS];
  value = sum_of_warp(value);
  if (threadIdx.x % WARP_LANES == 0) parts[threadIdx.x / WARP_LANES] = value;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < BLOCK_WARPS; ++warp) sum += parts[warp];
  return sum;
}

// Adds the output of one part of a layer to the residual stream, and normalises the sum (arXiv 1910.07467,
// equation 4). One block for each row; its threads take neighbouring columns, so that their loads join.
struct AddNorm {
  u64 residual;  // [rows, width], f32; written where there is a delta
  u64 delta;     // [rows, width], or 0
  u64 weight;    // [width], f32
  u64 normed;    // [rows, width]
  u32 width;
  float epsilon;
};
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) add_norm(const AddNorm given) {
  const u64 start = (u64)blockIdx.x * given.width;
  float *residual = (float *)given.residual + start;
  const Number *delta = given.delta ? (const Number *)given.delta + start : 0;
  const float *weight = (const float *)given.weight;
  Number *normed = (Number *)given.normed + start;
  // Over the columns: the sum is written back, since the next part of the layer adds to it again.
  float squares = 0;
  for (u32 column = threadIdx.x; column < given.width; column += BLOCK_THREADS) {
    float value = residual[column];
    if (delta) residual[column] = value += widen(delta[column]);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(sum_of_block(squares) / given.width + given.epsilon);
  // Over the same columns in the same threads, so each thread reads only numbers that it wrote itself.
  for (u32 column = threadIdx.x; column < given.width; column += BLOCK_THREADS)
    normed[column] = narrow(residual[column] * scale * weight[column]);
}

// Normalises query and key heads if the family does, rotates them (arXiv 2104.09864, over halves), and stores
// keys and values in the cache. One warp for each head of each row.
struct RotateAndStore {
  u64 joined;     // [rows, heads + 2 key_value_heads, HEAD_DIM]: query, key, value
  u64 norm;       // [heads + key_value_heads, HEAD_DIM], f32, or 0
  u64 cosines;    // [positions, HEAD_DIM], f32, or 0 if the layer does not rotate
  u64 sines;      // the same
  u64 positions;  // [rows], i32
  u64 slots;      // [rows], i32: index among all tokens of the cache
  u64 query;      // [rows, heads, HEAD_DIM]
  u64 keys;       // [tokens of the cache, key_value_heads, HEAD_DIM]
  u64 values;     // the same
  u32 heads, key_value_heads;
  float epsilon;
  u32 unused;
};
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) rotate_and_store(const RotateAndStore given) {
  const u32 all_heads = given.heads + 2 * given.key_value_heads;
  const u32 row_blocks = (all_heads + BLOCK_WARPS - 1) / BLOCK_WARPS;
  const u32 row = blockIdx.x / row_blocks, lane = threadIdx.x % WARP_LANES;
  const u32 head = blockIdx.x % row_blocks * BLOCK_WARPS + threadIdx.x / WARP_LANES;
  if (head >= all_heads) return;
  const Number *from = (const Number *)given.joined + ((u64)row * all_heads + head) * HEAD_DIM;
  const u64 slot = ((const u32 *)given.slots)[row];
  // The destination: queries go to attention, keys and values to the row's slot. Values are only copied.
  Number *to;
  if (head < given.heads) {
    to = (Number *)given.query + ((u64)row * given.heads + head) * HEAD_DIM;
  } else if (head < given.heads + given.key_value_heads) {
    to = (Number *)given.keys + (slot * given.key_value_heads + head - given.heads) * HEAD_DIM;
  } else {
    to = (Number *)given.values + (slot * given.key_value_heads + head - given.heads - given.key_value_heads) * HEAD_DIM;
    for (u32 dim = lane; dim < HEAD_DIM; dim += WARP_LANES) to[dim] = from[dim];
    return;
  }
  const float *weight = given.norm ? (const float *)given.norm + (u64)head * HEAD_DIM : 0;
  // The norm comes before the rotation. The lanes hold the head together, so the warp adds its squares.
  float scale = 1;
  if (weight) {
    float squares = 0;
    for (u32 dim = lane; dim < HEAD_DIM; dim += WARP_LANES) squares += widen(from[dim]) * widen(from[dim]);
    scale = 1.0f / sqrtf(sum_of_warp(squares) / HEAD_DIM + given.epsilon);
  }
  // Over the head's numbers, each read together with its partner in the other half.
  const u64 angles = (u64)((const u32 *)given.positions)[row] * HEAD_DIM;
  for (u32 dim = lane; dim < HEAD_DIM; dim += WARP_LANES) {
    const u32 partner = dim < HEAD_DIM / 2 ? dim + HEAD_DIM / 2 : dim - HEAD_DIM / 2;
    float value = widen(from[dim]) * scale, other = widen(from[partner]) * scale;
    if (weight) {
      value *= weight[dim];
      other *= weight[partner];
    }
    if (given.cosines) {
      const float cosine = ((const float *)given.cosines)[angles + dim], sine = ((const float *)given.sines)[angles + dim];
      value = value * cosine + (dim < HEAD_DIM / 2 ? -other : other) * sine;
    }
    to[dim] = narrow(value);
  }
}

// Attention of single rows over their blocks of the cache. One block of threads for each row, key/value head and
// part of the context. Each of its warps takes every fourth block of the cache. For the scores a lane holds one
// token, for the sums it holds some numbers of the head. `join_parts` joins the results of several parts.
struct Attend {
  u64 query;      // [rows, heads, HEAD_DIM]
  u64 keys;       // of the layer: [blocks of the cache, BLOCK_TOKENS, key_value_heads, HEAD_DIM]
  u64 values;     // the same
  u64 rows;       // [singles], i32: their rows
  u64 lengths;    // [singles], i32: tokens of their contexts, including their own
  u64 tables;     // [singles, table_blocks], i32: their blocks of the cache in order
  u64 mixed;      // [rows, heads, HEAD_DIM]
  u64 partials;   // [singles, key_value_heads, parts, GROUP, HEAD_DIM + 2], f32: sums, maximum, weight
  u32 table_blocks, key_value_heads, parts;
  u32 window;     // tokens that a row attends to, including its own; 0 for all
  float scale;
  u32 unused;
};
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) attend(const Attend given) {
  __shared__ float query[GROUP][HEAD_DIM];
  __shared__ float weights[BLOCK_WARPS][GROUP][WARP_LANES];
  __shared__ float results[BLOCK_WARPS][GROUP][HEAD_DIM + 2];
  const u32 part = blockIdx.x % given.parts, pair = blockIdx.x / given.parts;
  const u32 single = pair / given.key_value_heads, head = pair % given.key_value_heads;
  const u32 warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
  const u64 row = ((const u32 *)given.rows)[single];
  const u32 end = ((const u32 *)given.lengths)[single];
  const u32 first = given.window && end > given.window ? end - given.window : 0;
  const u32 *table = (const u32 *)given.tables + (u64)single * given.table_blocks;
  const u64 heads = ((u64)row * given.key_value_heads + head) * GROUP * HEAD_DIM;

  // The queries of the group go to shared memory once, scaled, since every warp reads them for each block.
  const Number *queries = (const Number *)given.query + heads;
  for (u32 index = threadIdx.x; index < GROUP * HEAD_DIM; index += BLOCK_THREADS)
    query[index / HEAD_DIM][index % HEAD_DIM] = widen(queries[index]) * given.scale;
  __syncthreads();

  // The blocks of this part, of those within the window.
  const u32 first_block = first / BLOCK_TOKENS, last_block = (end + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
  const u32 part_blocks = (last_block - first_block + given.parts - 1) / given.parts;
  const u32 begin = first_block + part * part_blocks;
  const u32 stop = begin + part_blocks < last_block ? begin + part_blocks : last_block;
  float maximum[GROUP], weight[GROUP], sums[GROUP][LANE_DIMS];
#pragma unroll
  for (int query_head = 0; query_head < GROUP; ++query_head) {
    maximum[query_head] = MINUS_INFINITY;
    weight[query_head] = 0;
#pragma unroll
    for (int dim = 0; dim < LANE_DIMS; ++dim) sums[query_head][dim] = 0;
  }
  // Over the warp's blocks of the cache, with a running softmax (arXiv 1805.02867): keys and values are read
  // once, and nothing that grows with the context is held.
  for (u32 block = begin + warp; block < stop; block += BLOCK_WARPS) {
    const u64 tokens = (u64)table[block] * BLOCK_TOKENS;
    const u32 token = block * BLOCK_TOKENS + lane;
    const ChunkWords *key = (const ChunkWords *)((const Number *)given.keys +
                                                 ((tokens + lane) * given.key_value_heads + head) * HEAD_DIM);
    // Over the key of the lane's token, in wide loads; each number serves all query heads of the group.
    float scores[GROUP] = {};
    for (u32 chunk = 0; chunk < HEAD_DIM / CHUNK_NUMBERS; ++chunk) {
      Chunk read;
      read.words = key[chunk];
#pragma unroll
      for (int number = 0; number < CHUNK_NUMBERS; ++number) {
        const float value = widen(read.numbers[number]);
#pragma unroll
        for (int query_head = 0; query_head < GROUP; ++query_head)
          scores[query_head] += query[query_head][chunk * CHUNK_NUMBERS + number] * value;
      }
    }
    // Over the query heads: the warp agrees on the maximum, scales its earlier sums down, and shares the weights.
    const bool seen = token >= first && token < end;
#pragma unroll
    for (int query_head = 0; query_head < GROUP; ++query_head) {
      const float score = seen ? scores[query_head] : MINUS_INFINITY;
      const float highest = max_of_warp(score);
      const float before = maximum[query_head];
      // At least one token of each block is seen, so this is finite.
      const float now = highest > before ? highest : before;
      const float share = expf(score - now), kept = expf(before - now);
      maximum[query_head] = now;
      weight[query_head] = weight[query_head] * kept + sum_of_warp(share);
#pragma unroll
      for (int dim = 0; dim < LANE_DIMS; ++dim) sums[query_head][dim] *= kept;
      weights[warp][query_head][lane] = share;
    }
    __syncwarp();
    // Over the tokens of the block: the lanes now hold the numbers of the head, so a value is one joined load.
    const u32 tokens_left = end - block * BLOCK_TOKENS;
    for (u32 other = 0; other < BLOCK_TOKENS && other < tokens_left; ++other) {
      const Number *value = (const Number *)given.values +
                            ((tokens + other) * given.key_value_heads + head) * HEAD_DIM;
#pragma unroll
      for (int dim = 0; dim < LANE_DIMS; ++dim) {
        const u32 index = dim * WARP_LANES + lane;
        const float number = index < HEAD_DIM ? widen(value[index]) : 0;
#pragma unroll
        for (int query_head = 0; query_head < GROUP; ++query_head)
          sums[query_head][dim] += weights[warp][query_head][other] * number;
      }
    }
    // All lanes have read the weights before those of the next block overwrite them.
    __syncwarp();
  }
#pragma unroll
  for (int query_head = 0; query_head < GROUP; ++query_head) {
#pragma unroll
    for (int dim = 0; dim < LANE_DIMS; ++dim) {
      const u32 index = dim * WARP_LANES + lane;
      if (index < HEAD_DIM) results[warp][query_head][index] = sums[query_head][dim];
    }
    if (lane == 0) {
      results[warp][query_head][HEAD_DIM] = maximum[query_head];
      results[warp][query_head][HEAD_DIM + 1] = weight[query_head];
    }
  }
  __syncthreads();
  // Over the numbers of the group's heads: joins the warps, whose sums are relative to their own maximum.
  for (u32 index = threadIdx.x; index < GROUP * HEAD_DIM; index += BLOCK_THREADS) {
    const u32 query_head = index / HEAD_DIM, dim = index % HEAD_DIM;
    float highest = MINUS_INFINITY, sum = 0, total = 0;
    for (u32 other = 0; other < BLOCK_WARPS; ++other)
      highest = fmaxf(highest, results[other][query_head][HEAD_DIM]);
    for (u32 other = 0; other < BLOCK_WARPS; ++other) {
      const float *result = results[other][query_head];
      // A warp without a block has no weight.
      if (result[HEAD_DIM + 1] == 0) continue;
      const float kept = expf(result[HEAD_DIM] - highest);
      sum += kept * result[dim];
      total += kept * result[HEAD_DIM + 1];
    }
    if (given.parts == 1) {
      ((Number *)given.mixed)[heads + index] = narrow(sum / total);
    } else {
      float *partial = (float *)given.partials + ((u64)blockIdx.x * GROUP + query_head) * (HEAD_DIM + 2);
      partial[dim] = sum;
      if (dim == 0) {
        partial[HEAD_DIM] = highest;
        partial[HEAD_DIM + 1] = total;
      }
    }
  }
}

// Joins the results of the parts of a context. One block for each single row and key/value head.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) join_parts(const Attend given) {
  const u32 single = blockIdx.x / given.key_value_heads, head = blockIdx.x % given.key_value_heads;
  const u64 row = ((const u32 *)given.rows)[single];
  const float *parts = (const float *)given.partials + (u64)blockIdx.x * given.parts * GROUP * (HEAD_DIM + 2);
  Number *mixed = (Number *)given.mixed + (row * given.key_value_heads + head) * GROUP * HEAD_DIM;
  // Over the numbers of the group's heads, then twice over the parts: their maximum is needed before their sums.
  for (u32 index = threadIdx.x; index < GROUP * HEAD_DIM; index += BLOCK_THREADS) {
    const u32 query_head = index / HEAD_DIM, dim = index % HEAD_DIM;
    float highest = MINUS_INFINITY, sum = 0, total = 0;
    for (u32 part = 0; part < given.parts; ++part)
      highest = fmaxf(highest, parts[(part * GROUP + query_head) * (HEAD_DIM + 2) + HEAD_DIM]);
    for (u32 part = 0; part < given.parts; ++part) {
      const float *partial = parts + (part * GROUP + query_head) * (HEAD_DIM + 2);
      // The last parts of a short context have no tokens and no weight.
      if (partial[HEAD_DIM + 1] == 0) continue;
      const float kept = expf(partial[HEAD_DIM] - highest);
      sum += kept * partial[dim];
      total += kept * partial[HEAD_DIM + 1];
    }
    mixed[index] = narrow(sum / total);
  }
}

// SwiGLU (arXiv 2002.05202, equation 6) of the joined products. One block for each row.
struct Gate {
  u64 joined;   // [rows, 2 width]: gate, up
  u64 active;   // [rows, width]
  u32 width;
  u32 unused;
};
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) gate(const Gate given) {
  const Number *gate = (const Number *)given.joined + (u64)blockIdx.x * 2 * given.width;
  const Number *up = gate + given.width;
  Number *active = (Number *)given.active + (u64)blockIdx.x * given.width;
  for (u32 column = threadIdx.x; column < given.width; column += BLOCK_THREADS) {
    const float value = widen(gate[column]);
    active[column] = narrow(value / (1.0f + expf(-value)) * widen(up[column]));
  }
}

// Draws a token from each distribution by inverting its cumulative sum, or takes the first of the most likely
// tokens. One block for each draw. Slices are summed first, so one thread searches only the slices, the lanes of
// one slice, and the tokens of one lane.
struct DrawTokens {
  u64 logits;        // [distributions, vocab]
  u64 rows;          // [draws], i32: index of the draw's distribution
  u64 temperatures;  // [draws], f32; 0 takes the most likely token
  u64 uniforms;      // [draws], f64, in [0, 1)
  u64 tokens;        // [draws], i32
  u64 log_probs;     // [draws], f32
  u32 vocab;
  u32 unused;
};
extern "C" __global__ void __launch_bounds__(DRAW_THREADS) draw_tokens(const DrawTokens given) {
  __shared__ float highest[DRAW_THREADS], slices[SLICES_MAX], lanes[WARP_LANES];
  __shared__ u32 first[DRAW_THREADS];
  __shared__ u32 chosen;
  __shared__ double rest, total;
  const u32 thread = threadIdx.x, lane = thread % WARP_LANES;
  const Number *logits = (const Number *)given.logits + (u64)((const u32 *)given.rows)[blockIdx.x] * given.vocab;
  const float requested = ((const float *)given.temperatures)[blockIdx.x];
  const float temperature = requested > 0 ? requested : 1;
  // The largest logit of the row: over the vocabulary in neighbouring tokens, then halving over the threads.
  // Of equal logits the lowest token wins, whatever the order.
  float best = MINUS_INFINITY;
  u32 best_token = given.vocab;
  for (u32 token = thread; token < given.vocab; token += DRAW_THREADS) {
    const float value = widen(logits[token]) / temperature;
    if (value > best) {
      best = value;
      best_token = token;
    }
  }
  highest[thread] = best;
  first[thread] = best_token;
  __syncthreads();
  for (u32 half = DRAW_THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      const float other = highest[thread + half];
      const bool wins = other > highest[thread] || (other == highest[thread] && first[thread + half] < first[thread]);
      if (wins) {
        highest[thread] = other;
        first[thread] = first[thread + half];
      }
    }
    __syncthreads();
  }
  const float most = highest[0];
  // The sum of each slice: one warp for a slice, whose lanes read neighbouring tokens.
  const u32 slice_count = (given.vocab + SLICE_TOKENS - 1) / SLICE_TOKENS;
  for (u32 slice = thread / WARP_LANES; slice < slice_count; slice += DRAW_THREADS / WARP_LANES) {
    float sum = 0;
    for (u32 offset = lane; offset < SLICE_TOKENS; offset += WARP_LANES) {
      const u32 token = slice * SLICE_TOKENS + offset;
      if (token < given.vocab) sum += expf(widen(logits[token]) / temperature - most);
    }
    sum = sum_of_warp(sum);
    if (lane == 0) slices[slice] = sum;
  }
  __syncthreads();
  // The slice of the draw, found by one thread in the order of the vocabulary.
  if (thread == 0) {
    total = 0;
    for (u32 slice = 0; slice < slice_count; ++slice) total += slices[slice];
    rest = ((const double *)given.uniforms)[blockIdx.x] * total;
    chosen = 0;
    // Rounding may leave a rest after the last sum; then the last slice with a share is chosen.
    double left = rest;
    for (u32 slice = 0; slice < slice_count; ++slice) {
      if (!(slices[slice] > 0)) continue;
      chosen = slice;
      rest = left;
      if (left < slices[slice]) break;
      left -= slices[slice];
    }
  }
  __syncthreads();
  // The sums of the chosen slice again, this time of consecutive tokens for each lane, so that their order is
  // that of the vocabulary.
  const u32 slice_start = chosen * SLICE_TOKENS;
  if (thread < WARP_LANES) {
    float sum = 0;
    for (u32 offset = 0; offset < SLICE_TOKENS / WARP_LANES; ++offset) {
      const u32 token = slice_start + lane * (SLICE_TOKENS / WARP_LANES) + offset;
      if (token < given.vocab) sum += expf(widen(logits[token]) / temperature - most);
    }
    lanes[lane] = sum;
  }
  __syncthreads();
  // One thread finds the lane of the draw, then the token within it.
  if (thread != 0) return;
  u32 token = first[0] < given.vocab ? first[0] : 0;
  if (requested > 0) {
    u32 chosen_lane = 0;
    double left = rest;
    for (u32 other = 0; other < WARP_LANES; ++other) {
      if (!(lanes[other] > 0)) continue;
      chosen_lane = other;
      rest = left;
      if (left < lanes[other]) break;
      left -= lanes[other];
    }
    for (u32 offset = 0; offset < SLICE_TOKENS / WARP_LANES; ++offset) {
      const u32 other = slice_start + chosen_lane * (SLICE_TOKENS / WARP_LANES) + offset;
      if (other >= given.vocab) break;
      const double share = expf(widen(logits[other]) / temperature - most);
      if (!(share > 0)) continue;
      token = other;
      if (rest < share) break;
      rest -= share;
    }
  }
  ((u32 *)given.tokens)[blockIdx.x] = token;
  ((float *)given.log_probs)[blockIdx.x] = widen(logits[token]) / temperature - most - (float)log(total);
}
