// A device in plain C++, for tests on machines without one: the threads of a block are coroutines
// that meet at barriers, and blocks run one after the other. Slow, and no proof of what hardware
// does; but the text of the kernels is the one that devices run. It needs the types u32 and u64.
//
// What it finds that a device might not show: threads that do not all come to a barrier.

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
const u32 LANES = 32, STACK_BYTES = 256 << 10;

struct Thread {
  ucontext_t context;
  // Where it goes on: unlike those of contexts, these jumps leave the signals alone.
  jmp_buf place;
  std::vector<char> stack;
  bool begun, done;
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
// What is done before the threads of a block begin.
static void (*before_block)();

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
    // Their stacks are kept: to make them costs more than most kernels.
    threads.resize(block_threads);
    meetings.assign(1 + block_threads / LANES, Meeting());
    idle = 0;
    if (before_block) before_block();
    for (Thread &thread : threads) {
      thread.begun = thread.done = false;
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
inline void __syncwarp() { device::meet_warp("", 1); }
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
