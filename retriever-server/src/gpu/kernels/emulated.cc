// The kernels of search.cu on the processor, behind two functions. The tests compile it, and replace
// `__shared__` in the kernels' text, which C++ does not have.

#define EMULATED
#include "search.cc"

static Phase phase;
// The arguments of `cut_lists`.
static struct {
  u64 *lists;
  u32 *counts, *kept;
  u64 *thresholds;
  const u32 *overflow;
  u64 *results;
  u32 keep;
} cut;

extern "C" int emulate(const char *name, u32 blocks, const Phase *argument) {
  phase = *argument;
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
  cut = {lists, counts, kept, thresholds, overflow, results, keep};
  // Any number of threads is correct; a small one is faster here.
  device::run(queries, 64, [] {
    cut_lists(cut.lists, cut.counts, cut.kept, cut.thresholds, cut.overflow, cut.results, cut.keep);
  });
}
