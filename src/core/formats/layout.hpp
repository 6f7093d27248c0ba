// Layout: where everything lies in a replica's backing. Pure arithmetic from the volume's size; nothing here
// is stored, so a reader needs the superblock's size field only. Byte tables: docs/formats/disk.md.
//
//   0          superblock slot A (4 KiB)
//   64 KiB     superblock slot B
//   128 KiB    intent log ring, 16 transactions of 4 KiB
//   1 MiB      dirty bitmap, one 4 KiB page per 120 MiB of volume
//   data       plain raw data: at 64 MiB for volumes up to 1 TiB, doubled until the bitmap fits for larger
//   ones
#pragma once

#include <cstdint>

namespace gemel::formats {

inline constexpr std::uint64_t kPageBytes = 4096;
inline constexpr std::uint64_t kBlockBytes = 4096;         // one dirty bit
inline constexpr std::uint64_t kExtentBytes = 4ULL << 20;  // one intent-log extent
inline constexpr std::uint64_t kBlocksPerExtent = kExtentBytes / kBlockBytes;
inline constexpr std::uint64_t kBlocksPerPage = 30720;  // bits in a bitmap page: 120 MiB
inline constexpr std::uint64_t kExtentsPerPage =
    kBlocksPerPage / kBlocksPerExtent;  // an extent never straddles pages
inline constexpr std::uint64_t kWordsPerPage = kBlocksPerPage / 64;
inline constexpr std::uint64_t kSuperblockA = 0;
inline constexpr std::uint64_t kSuperblockB = 64ULL << 10;
inline constexpr std::uint64_t kIntentLogOffset = 128ULL << 10;
inline constexpr std::uint64_t kIntentLogSlots = 16;
inline constexpr std::uint64_t kBitmapOffset = 1ULL << 20;
inline constexpr std::uint64_t kSmallestDataOffset = 64ULL << 20;
inline constexpr std::uint64_t kLargestVolume = 1ULL << 46;  // 64 TiB

static_assert(kExtentsPerPage * kBlocksPerExtent == kBlocksPerPage);

struct Layout {
    std::uint64_t size_bytes = 0;  // of the volume
    std::uint64_t blocks = 0;
    std::uint64_t extents = 0;  // the last one may be short
    std::uint64_t bitmap_pages = 0;
    std::uint64_t metadata_bytes = 0;  // used from offset 0
    std::uint64_t data_offset = 0;

    // size_bytes: a multiple of 4096 in (0, kLargestVolume]; anything else is the caller's error (INVARIANT).
    static Layout for_size(std::uint64_t size_bytes);
    static bool valid_size(std::uint64_t size_bytes) {
        return size_bytes > 0 && size_bytes % kBlockBytes == 0 && size_bytes <= kLargestVolume;
    }

    std::uint64_t backing_bytes() const { return data_offset + size_bytes; }
    static std::uint64_t superblock_offset(std::uint64_t sequence) {
        return sequence % 2 == 0 ? kSuperblockA : kSuperblockB;
    }
    static std::uint64_t intent_offset(std::uint64_t sequence) {
        return kIntentLogOffset + sequence % kIntentLogSlots * kPageBytes;
    }
    static std::uint64_t bitmap_offset(std::uint64_t page) { return kBitmapOffset + page * kPageBytes; }

    bool operator==(const Layout&) const = default;
};

}  // namespace gemel::formats
