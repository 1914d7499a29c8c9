// The instructions of search.cu for the emulated device of `device.h`, as the PTX ISA manual describes
// them: `ldmatrix` in chapter 9.7.15.5.15, `mma` and its fragments in 9.7.15.5.8 (m16n8k16 of halves)
// and 9.7.15.5.10 (m16n8k32 of bytes). In bytes, the fragments of both formats are the same.
//
// It detects faults that a device might hide: copies that are read before they are waited for, and
// accesses outside of shared memory.

#include "device.h"

namespace device {
const u32 SHARED_BYTES = 228 << 10;
struct Copy { u32 to; const unsigned char *from; };
// The groups of copies that each thread has not waited for yet. The last group is still open.
static std::vector<std::vector<std::vector<Copy>>> copies;
static const bool copies_begin = [] {
  before_block = [] { copies.assign(blockDim.x, std::vector<std::vector<Copy>>(1)); };
  return true;
}();
}  // namespace device

alignas(128) static unsigned char stages[device::SHARED_BYTES];

static unsigned char *shared_at(u32 address) {
  if (address % 16 != 0 || address + 16 > device::SHARED_BYTES) device::fail("bad shared address");
  return stages + address;
}

inline uint4 load_chunk(const unsigned char *from) {
  uint4 chunk;
  std::memcpy(&chunk, from, sizeof chunk);
  return chunk;
}

inline float widen_half(u32 half) {
  const int exponent = half >> 10 & 31, digits = half & 1023;
  float value;
  if (exponent == 31) value = digits ? NAN : INFINITY;
  else if (exponent == 0) value = std::ldexp((float)digits, -24);
  else value = std::ldexp((float)(digits + 1024), exponent - 25);
  return half & 0x8000 ? -value : value;
}
inline void widen(u32 halves, float &low, float &high) {
  low = widen_half(halves & 0xffff);
  high = widen_half(halves >> 16);
}

inline int multiply_four(int sum, u32 left, u32 right) {
  for (int byte = 0; byte < 4; ++byte)
    sum += (int)(signed char)(left >> (8 * byte)) * (signed char)(right >> (8 * byte));
  return sum;
}

inline u32 shared_address(const void *pointer) {
  return (u32)((const unsigned char *)pointer - stages);
}

inline void copy_chunk(u32 to_shared, const unsigned char *from) {
  // The target is invalid until the copy has been waited for.
  std::memset(shared_at(to_shared), 0x7f, 16);
  device::copies[device::current].back().push_back({to_shared, from});
}
inline void commit_copies() { device::copies[device::current].emplace_back(); }
template <int PENDING>
inline void wait_for_copies() {
  auto &groups = device::copies[device::current];
  // Copies as late as the instruction allows.
  while (groups.size() - 1 > PENDING) {
    for (const device::Copy &copy : groups.front()) std::memcpy(shared_at(copy.to), copy.from, 16);
    groups.erase(groups.begin());
  }
}

// Lane 8 m + i gives the address of line i of matrix m; every lane gets four bytes of each matrix.
inline void load_fragments(u32 (&fragments)[4], u32 from_shared) {
  const unsigned char(*all)[64] = device::meet_warp(&from_shared, sizeof from_shared);
  const u32 lane = device::current % device::LANES;
  for (u32 matrix = 0; matrix < 4; ++matrix) {
    u32 address;
    std::memcpy(&address, all[matrix * 8 + lane / 4], sizeof address);
    std::memcpy(&fragments[matrix], shared_at(address) + lane % 4 * 4, 4);
  }
}

// Collects the 32 bytes of a line or column of a matrix from registers `first` and `first + step` of
// the lanes that hold it.
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
  multiply_matrices(sums, rows, query0, query1, [](float sum, const unsigned char *left, const unsigned char *right) {
    for (int number = 0; number < 16; ++number)
      sum = std::fma(widen_half(left[2 * number] | left[2 * number + 1] << 8),
                     widen_half(right[2 * number] | right[2 * number + 1] << 8), sum);
    return sum;
  });
}
inline void multiply_bytes(int (&sums)[4], const u32 (&rows)[4], u32 query0, u32 query1) {
  multiply_matrices(sums, rows, query0, query1, [](int sum, const unsigned char *left, const unsigned char *right) {
    for (int byte = 0; byte < 32; ++byte) sum += (signed char)left[byte] * (signed char)right[byte];
    return sum;
  });
}
