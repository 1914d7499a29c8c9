// A device in plain C++, for tests on machines without one. The threads of a block are coroutines that meet at
// barriers, and blocks run one after the other. It is slow and proves nothing about hardware, but it runs the same
// kernel text as devices do. It needs the types u32 and u64.
//
// It detects a fault that a device might hide: threads of a block that do not all reach a barrier.

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
struct Index { u32 x; };
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace device {
const u32 LANES = 32, STACK_BYTES = 256 << 10;

struct Thread {
  ucontext_t context;
  // The point to resume at. Unlike switches of contexts, these jumps do not touch the signal mask.
  jmp_buf resume_point;
  std::vector<char> stack;
  bool begun, done;
};
// A barrier of threads that exchange values. Two buffers alternate, so that slow threads can still read while fast
// threads write the next values.
struct Meeting {
  u32 arrived, turn;
  unsigned char values[2][1024][64];
};

static std::vector<Thread> threads;
static std::vector<Meeting> meetings;
static ucontext_t host;
static jmp_buf host_point;
static u32 current, idle;
static void (*body)();
// A function to call before the threads of a block start.
static void (*before_block)();

[[noreturn]] inline void fail(const char *text) {
  std::fprintf(stderr, "emulated device: %s (block %u, thread %u)\n", text, blockIdx.x, current);
  std::abort();
}

inline void yield() {
  if (++idle > 4 * threads.size()) fail("threads wait for others that do not arrive");
  if (!_setjmp(threads[current].resume_point)) _longjmp(host_point, 1);
}

// Waits for the other threads of a warp, or of the block (meeting 0). Returns the values of all.
inline const unsigned char (*meet(u32 meeting, u32 slot, u32 count, const void *value, u32 bytes))[64] {
  Meeting &here = meetings[meeting];
  const u32 turn = here.turn;
  std::memcpy(here.values[turn % 2][slot], value, bytes);
  if (++here.arrived == count) {
    here.arrived = 0;
    ++here.turn;
    idle = 0;
  }
  while (here.turn == turn) yield();
  return here.values[turn % 2];
}
inline const unsigned char (*meet_warp(const void *value, u32 bytes))[64] {
  return meet(1 + current / LANES, current % LANES, LANES, value, bytes);
}

inline void start() {
  body();
  threads[current].done = true;
  idle = 0;
  _longjmp(host_point, 1);
}

// Runs the current thread until it waits or ends.
inline void resume() {
  Thread &thread = threads[current];
  if (_setjmp(host_point)) return;
  if (thread.begun) _longjmp(thread.resume_point, 1);
  thread.begun = true;
  setcontext(&thread.context);
}

inline void run(u32 blocks, u32 block_threads, void (*kernel)()) {
  body = kernel;
  gridDim.x = blocks;
  blockDim.x = block_threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    // The stacks are kept: allocating them takes longer than most kernels.
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
        resume();
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
inline u32 atomicAdd(u32 *address, u32 value) {
  const u32 before = *address;
  *address += value;
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
inline float __fmaf_rn(float left, float right, float sum) { return std::fma(left, right, sum); }
