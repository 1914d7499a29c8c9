// The instructions that search.cu names, as the PTX ISA manual describes them, for the emulated device
// of `device.h`. What it finds that a device might not show: copies that are read before they were
// waited for, accesses outside of shared memory.

#include "device.h"

namespace device {
const u32 SHARED_BYTES = 228 << 10;
struct Copy { u32 to; const unsigned char *from; };
// Groups of copies of each thread that were not waited for, the last one still open.
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
  device::copies[device::current].back().push_back({to_shared, from});
}
inline void commit_copies() { device::copies[device::current].emplace_back(); }
template <int UNDER_WAY>
inline void wait_for_copies() {
  auto &groups = device::copies[device::current];
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
