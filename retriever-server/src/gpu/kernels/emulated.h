// A device in plain C++, for tests on machines without one: the threads of a block are coroutines
// that meet at barriers, blocks run one after the other, and the instructions that search.cu names
// do here what the PTX ISA manual says. Slow, and no proof of what hardware does; but the text of
// the kernels is the one that devices run.
//
// What it finds that a device might not show: threads that do not all come to a barrier, copies
// that are read before they were waited for, accesses outside of shared memory.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __grid_constant__

struct uint4 { u32 x, y, z, w; };
struct Place { u32 x; };
static Place threadIdx, blockIdx, blockDim, gridDim;

namespace device {
const u32 LANES = 32, STACK_BYTES = 256 << 10, SHARED_BYTES = 228 << 10;

struct Copy { u32 to; const unsigned char *from; };
struct Thread {
  ucontext_t context;
  // Where it goes on: unlike those of contexts, these jumps leave the signals alone.
  jmp_buf place;
  std::vector<char> stack;
  bool begun, done;
  // Groups of copies that were not waited for, the last one still open.
  std::vector<std::vector<Copy>> copies;
};
// Where threads wait for each other. What they bring lies in two places by turns, so that the slow
// still read while the fast bring the next.
struct Meeting {
  u32 come, turn;
  unsigned char brought[2][1024][64];
};

static std::vector<Thread> threads;
static std::vector<Meeting> meetings;
static ucontext_t host;
static jmp_buf host_place;
static u32 current, idle;
static void (*body)();

[[noreturn]] inline void fail(const char *text) {
  std::fprintf(stderr, "emulated device: %s (block %u, thread %u)\n", text, blockIdx.x, current);
  std::abort();
}

inline void yield() {
  if (++idle > 4 * threads.size()) fail("threads wait for others that do not come");
  if (!_setjmp(threads[current].place)) _longjmp(host_place, 1);
}

// Meets the others of the warp, or of the block: meeting 0. Returns what all brought.
inline const unsigned char (*meet(u32 meeting, u32 place, u32 of, const void *bring, u32 bytes))[64] {
  Meeting &here = meetings[meeting];
  const u32 turn = here.turn;
  std::memcpy(here.brought[turn % 2][place], bring, bytes);
  if (++here.come == of) {
    here.come = 0;
    ++here.turn;
    idle = 0;
  }
  while (here.turn == turn) yield();
  return here.brought[turn % 2];
}
inline const unsigned char (*meet_warp(const void *bring, u32 bytes))[64] {
  return meet(1 + current / LANES, current % LANES, LANES, bring, bytes);
}

inline void start() {
  body();
  threads[current].done = true;
  idle = 0;
  _longjmp(host_place, 1);
}

// Lets the current thread run until it waits or ends.
inline void go_on() {
  Thread &thread = threads[current];
  if (_setjmp(host_place)) return;
  if (thread.begun) _longjmp(thread.place, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

inline void run(u32 blocks, u32 block_threads, void (*kernel)()) {
  body = kernel;
  gridDim.x = blocks;
  blockDim.x = block_threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    threads.assign(block_threads, Thread());
    meetings.assign(1 + block_threads / LANES, Meeting());
    idle = 0;
    for (Thread &thread : threads) {
      thread.begun = thread.done = false;
      thread.copies.emplace_back();
      thread.stack.resize(STACK_BYTES);
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = STACK_BYTES;
      thread.context.uc_link = &host;
      makecontext(&thread.context, start, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (current = 0; current < block_threads; ++current) {
        if (threads[current].done) continue;
        running = true;
        threadIdx.x = current;
        go_on();
      }
    }
  }
}
}  // namespace device

alignas(128) static unsigned char stages[device::SHARED_BYTES];

static unsigned char *shared_at(u32 address) {
  if (address % 16 != 0 || address + 16 > device::SHARED_BYTES) device::fail("bad shared address");
  return stages + address;
}

inline void __syncthreads() { device::meet(0, device::current, blockDim.x, "", 1); }
inline int __syncthreads_or(int value) {
  const unsigned char(*all)[64] = device::meet(0, device::current, blockDim.x, &value, sizeof value);
  int any = 0;
  for (u32 thread = 0; thread < blockDim.x; ++thread) {
    std::memcpy(&value, all[thread], sizeof value);
    any |= value;
  }
  return any;
}
inline int __any_sync(u32, int value) {
  const unsigned char(*all)[64] = device::meet_warp(&value, sizeof value);
  int any = 0;
  for (u32 lane = 0; lane < device::LANES; ++lane) {
    std::memcpy(&value, all[lane], sizeof value);
    any |= value;
  }
  return any;
}
template <typename T>
inline T __shfl_xor_sync(u32, T value, int apart) {
  const unsigned char(*all)[64] = device::meet_warp(&value, sizeof value);
  T other;
  std::memcpy(&other, all[(device::current % device::LANES) ^ apart], sizeof other);
  return other;
}
inline u32 atomicAdd(u32 *place, u32 value) {
  const u32 before = *place;
  *place += value;
  return before;
}
inline u32 __float_as_uint(float value) {
  u32 bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(u32 bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float __fmaf_rn(float one, float other, float sum) { return std::fma(one, other, sum); }

inline uint4 load_chunk(const unsigned char *from) {
  uint4 chunk;
  std::memcpy(&chunk, from, sizeof chunk);
  return chunk;
}

inline float widen_one(u32 half) {
  const int exponent = half >> 10 & 31, digits = half & 1023;
  float value;
  if (exponent == 31) value = digits ? NAN : INFINITY;
  else if (exponent == 0) value = std::ldexp((float)digits, -24);
  else value = std::ldexp((float)(digits + 1024), exponent - 25);
  return half & 0x8000 ? -value : value;
}
inline void widen(u32 halves, float &low, float &high) {
  low = widen_one(halves & 0xffff);
  high = widen_one(halves >> 16);
}

inline int multiply_four(int sum, u32 one, u32 other) {
  for (int byte = 0; byte < 4; ++byte)
    sum += (int)(signed char)(one >> (8 * byte)) * (signed char)(other >> (8 * byte));
  return sum;
}

inline u32 shared_address(const void *place) {
  return (u32)((const unsigned char *)place - stages);
}

inline void copy_chunk(u32 to_shared, const unsigned char *from) {
  // Spoilt from now on, until it is waited for.
  std::memset(shared_at(to_shared), 0x7f, 16);
  device::threads[device::current].copies.back().push_back({to_shared, from});
}
inline void commit_copies() { device::threads[device::current].copies.emplace_back(); }
template <int UNDER_WAY>
inline void wait_for_copies() {
  auto &groups = device::threads[device::current].copies;
  // As late as can be.
  while (groups.size() - 1 > UNDER_WAY) {
    for (const device::Copy &copy : groups.front()) std::memcpy(shared_at(copy.to), copy.from, 16);
    groups.erase(groups.begin());
  }
}

// Lane 8 m + i names line i of matrix m; every lane gets four bytes of each matrix.
inline void load_fragments(u32 (&fragments)[4], u32 from_shared) {
  const unsigned char(*all)[64] = device::meet_warp(&from_shared, sizeof from_shared);
  const u32 lane = device::current % device::LANES;
  for (u32 matrix = 0; matrix < 4; ++matrix) {
    u32 address;
    std::memcpy(&address, all[matrix * 8 + lane / 4], sizeof address);
    std::memcpy(&fragments[matrix], shared_at(address) + lane % 4 * 4, 4);
  }
}

// The 32 bytes of line or column `line` of a matrix, from registers `first`, `first + step` of lanes.
inline void gather(unsigned char (&bytes)[32], const unsigned char (*all)[64], u32 line, u32 first,
                   u32 step) {
  for (u32 half = 0; half < 2; ++half)
    for (u32 lane = 0; lane < 4; ++lane)
      std::memcpy(bytes + half * 16 + lane * 4, all[line * 4 + lane] + (first + half * step) * 4, 4);
}
template <typename Sum, typename Add>
inline void multiply_matrices(Sum (&sums)[4], const u32 (&rows)[4], u32 query0, u32 query1, Add add) {
  const u32 bring[6] = {rows[0], rows[1], rows[2], rows[3], query0, query1};
  const unsigned char(*all)[64] = device::meet_warp(bring, sizeof bring);
  const u32 lane = device::current % device::LANES;
  for (u32 sum = 0; sum < 4; ++sum) {
    unsigned char line[32], column[32];
    gather(line, all, lane / 4, sum / 2, 2);
    gather(column, all, lane % 4 * 2 + sum % 2, 4, 1);
    sums[sum] = add(sums[sum], line, column);
  }
}
inline void multiply_halves(float (&sums)[4], const u32 (&rows)[4], u32 query0, u32 query1) {
  multiply_matrices(sums, rows, query0, query1, [](float sum, const unsigned char *one, const unsigned char *other) {
    for (int number = 0; number < 16; ++number)
      sum = std::fma(widen_one(one[2 * number] | one[2 * number + 1] << 8),
                     widen_one(other[2 * number] | other[2 * number + 1] << 8), sum);
    return sum;
  });
}
inline void multiply_bytes(int (&sums)[4], const u32 (&rows)[4], u32 query0, u32 query1) {
  multiply_matrices(sums, rows, query0, query1, [](int sum, const unsigned char *one, const unsigned char *other) {
    for (int byte = 0; byte < 32; ++byte) sum += (signed char)one[byte] * (signed char)other[byte];
    return sum;
  });
}
