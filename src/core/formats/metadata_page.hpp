// Metadata page: the one frame every piece of metadata is stored in. A page is 4 KiB, eight sectors of 512
// bytes; each sector carries 480 bytes of payload and a 32-byte stamp (magic, kind, version, its own offset,
// the page's sequence, the replica it belongs to, crc32c). So three things that look alike can be told apart:
//   whole    every sector is sound and of one sequence
//   torn     every sector is sound, but of different sequences: a write of this page was provably cut short,
//   so
//            nobody was ever told that it completed (M1, M6)
//   damaged  a sector fails its checksum, lies at the wrong offset or belongs to another replica (M7):
//   unknown
// Pure encode and decode; not here: what the payload means.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/ids.hpp"

namespace gemel::formats {

inline constexpr std::size_t kSectorBytes = 512;
inline constexpr std::size_t kSectorPayload = 480;
inline constexpr std::size_t kSectorsPerPage = 8;
inline constexpr std::size_t kPagePayload = kSectorPayload * kSectorsPerPage;  // 3840
inline constexpr std::uint32_t kPageMagic = 0x4c4d4547;                        // "GEML"
inline constexpr std::uint8_t kDiskVersion = 1;

enum class PageKind : std::uint8_t { superblock = 1, intent = 2, bitmap = 3 };

using PageBytes = std::span<std::byte, 4096>;
using ConstPageBytes = std::span<const std::byte, 4096>;
using PagePayload = std::array<std::byte, kPagePayload>;

struct PageStamp {
    PageKind kind = PageKind::superblock;
    std::uint64_t offset = 0;    // of the page in the metadata area
    std::uint64_t sequence = 0;  // raised by every write of this page
    ReplicaId replica;
};

enum class PageHealth : std::uint8_t {
    blank,  // all zero: never written
    whole,
    torn,
    damaged,
    newer_version,  // sound, but of a format this program does not know
    foreign,        // sound, but of another replica or meant for another place
};

void encode_page(const PageStamp& stamp, std::span<const std::byte, kPagePayload> payload, PageBytes out);

// One sector's payload as it was found; sound: stamp and checksum are right for (kind, offset, replica).
struct SectorView {
    bool sound = false;
    std::uint64_t sequence = 0;
    std::span<const std::byte> payload;
};

struct DecodedPage {
    PageHealth health = PageHealth::damaged;
    std::uint64_t sequence = 0;  // whole: the page's; torn: the highest found; otherwise 0
    std::array<SectorView, kSectorsPerPage> sectors;

    // whole pages only
    PagePayload payload() const;
};

// `replica` nil: any (the superblock says who it is). The views point into `bytes`.
DecodedPage decode_page(ConstPageBytes bytes, PageKind kind, std::uint64_t offset, const ReplicaId& replica);

// First four bytes of a replica id as the stamp carries them; enough to tell disks apart, the superblock has
// it whole.
std::uint32_t replica_stamp(const ReplicaId& replica);

}  // namespace gemel::formats
