#include "base/checksum.hpp"

#include <isa-l/crc.h>
#include <xxhash.h>

namespace gemel {

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
    std::uint32_t crc = ~seed;
    // the library takes a non-const pointer and an int length, but only reads; long spans go in pieces
    constexpr std::size_t kPiece = std::size_t{1} << 30;
    while (!bytes.empty()) {
        const auto piece = bytes.first(bytes.size() < kPiece ? bytes.size() : kPiece);
        auto* data = const_cast<std::byte*>(piece.data());
        crc = crc32_iscsi(reinterpret_cast<unsigned char*>(data), static_cast<int>(piece.size()), crc);
        bytes = bytes.subspan(piece.size());
    }
    return ~crc;
}

Hash128 hash128(std::span<const std::byte> bytes) noexcept {
    const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
    return {hash.high64, hash.low64};
}

}  // namespace gemel
