// Checksums: CRC32C (Castagnoli, RFC 3720 appendix B.4) guards metadata and frames; XXH3-128 compares blocks
// in a resync (strong enough that an equal hash means equal data for data nobody forges; never used against
// an attacker).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gemel {

// crc of `bytes`; pass an earlier result as `seed` to continue over several pieces
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0) noexcept;

struct Hash128 {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    auto operator<=>(const Hash128&) const = default;
};
Hash128 hash128(std::span<const std::byte> bytes) noexcept;

}  // namespace gemel
