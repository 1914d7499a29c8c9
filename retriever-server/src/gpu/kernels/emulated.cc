// The kernels of search.cu on the processor, behind two functions. Compiled by the tests, with the
// `__shared__` of the kernels' text replaced, which has no equal in C++.

#define EMULATED
#include "search.cc"

static Phase phase;
static struct {
  u64 *lists;
  u32 *counts, *kept;
  u64 *thresholds;
  const u32 *overflow;
  u64 *results;
  u32 keep;
} chosen;

extern "C" int emulate(const char *name, u32 blocks, const Phase *given) {
  phase = *given;
#define KERNEL(NAME)                                                       \
  if (!std::strcmp(name, #NAME)) {                                         \
    device::run(blocks, BLOCK_THREADS, [] { NAME(phase); });               \
    return 0;                                                              \
  }
  KERNEL(stream_1)
  KERNEL(stream_2)
  KERNEL(stream_4)
  KERNEL(stream_8)
  KERNEL(tiles_32)
  KERNEL(tiles_64)
  KERNEL(tiles_128)
  KERNEL(tiles_256)
  return 1;
}

extern "C" void emulate_cut_lists(u32 queries, u64 *lists, u32 *counts, u32 *kept, u64 *thresholds,
                               const u32 *overflow, u64 *results, u32 keep) {
  chosen = {lists, counts, kept, thresholds, overflow, results, keep};
  // Any number of threads will do, and few are fast here.
  device::run(queries, 64, [] {
    cut_lists(chosen.lists, chosen.counts, chosen.kept, chosen.thresholds, chosen.overflow,
              chosen.results, chosen.keep);
  });
}
