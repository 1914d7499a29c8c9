// The kernels of rollout.cu for the processor, behind two functions. The tests compile it.

#define EMULATED
#include "rollout.cc"

#define ALL_KERNELS                                            \
  KERNEL(add_norm, AddNorm) KERNEL(rotate_and_store, RotateAndStore) \
  KERNEL(attend, Attend) KERNEL(join_parts, Attend)              \
  KERNEL(gate, Gate) KERNEL(draw_tokens, DrawTokens)

// Runs a kernel; returns 1 if there is no such kernel.
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

// Returns the size of a kernel's arguments in bytes, or 0 if there is no such kernel.
extern "C" u32 argument_bytes(const char *name) {
#define KERNEL(NAME, ARGUMENTS) \
  if (!std::strcmp(name, #NAME)) return sizeof(ARGUMENTS);
  ALL_KERNELS
#undef KERNEL
  return 0;
}
