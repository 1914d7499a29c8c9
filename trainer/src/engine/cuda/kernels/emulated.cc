// The kernels of rollout.cu on the processor, behind two functions. Compiled by the tests.

#define EMULATED
#include "rollout.cc"

#define ALL_KERNELS                                            \
  KERNEL(add_norm, AddNorm) KERNEL(turn_and_store, TurnAndStore) \
  KERNEL(attend, Attend) KERNEL(join_parts, Attend)              \
  KERNEL(gate, Gate) KERNEL(draw_tokens, DrawTokens)

extern "C" int emulate(const char *name, u32 blocks, u32 threads, const void *arguments) {
#define KERNEL(NAME, ARGUMENTS)                              \
  if (!std::strcmp(name, #NAME)) {                           \
    static ARGUMENTS given;                                  \
    given = *(const ARGUMENTS *)arguments;                   \
    device::run(blocks, threads, [] { NAME(given); });       \
    return 0;                                                \
  }
  ALL_KERNELS
#undef KERNEL
  return 1;
}

// Bytes of a kernel's arguments; 0 if there is no such kernel.
extern "C" u32 argument_bytes(const char *name) {
#define KERNEL(NAME, ARGUMENTS) \
  if (!std::strcmp(name, #NAME)) return sizeof(ARGUMENTS);
  ALL_KERNELS
#undef KERNEL
  return 0;
}
