#include "core/formats/metadata_page.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::formats {
namespace {

constexpr std::size_t kCrcAt = kSectorBytes - 4;

struct SectorStamp {
    std::uint32_t magic = 0;
    std::uint8_t kind = 0;
    std::uint8_t version = 0;
    std::uint16_t index = 0;
    std::uint64_t offset = 0;
    std::uint64_t sequence = 0;
    std::uint32_t replica = 0;
    bool crc_right = false;
};

SectorStamp read_stamp(std::span<const std::byte> sector) {
    ByteReader reader(sector.subspan(kSectorPayload));
    SectorStamp stamp;
    stamp.magic = reader.u32();
    stamp.kind = reader.u8();
    stamp.version = reader.u8();
    stamp.index = reader.u16();
    stamp.offset = reader.u64();
    stamp.sequence = reader.u64();
    stamp.replica = reader.u32();
    const std::uint32_t crc = reader.u32();
    stamp.crc_right = stamp.magic == kPageMagic && crc == crc32c(sector.first(kCrcAt));
    return stamp;
}

bool all_zero(std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

std::uint32_t replica_stamp(const ReplicaId& replica) {
    return crc32c(std::as_bytes(std::span(replica.value.bytes)));
}

void encode_page(const PageStamp& stamp, std::span<const std::byte, kPagePayload> payload, PageBytes out) {
    INVARIANT(stamp.sequence > 0, "sequence 0 is what an unwritten page would claim");
    const std::uint32_t replica = replica_stamp(stamp.replica);
    for (std::size_t i = 0; i < kSectorsPerPage; ++i) {
        const auto sector = out.subspan(i * kSectorBytes, kSectorBytes);
        ByteWriter writer(sector);
        writer.raw(payload.subspan(i * kSectorPayload, kSectorPayload));
        writer.u32(kPageMagic);
        writer.u8(static_cast<std::uint8_t>(stamp.kind));
        writer.u8(kDiskVersion);
        writer.u16(static_cast<std::uint16_t>(i));
        writer.u64(stamp.offset);
        writer.u64(stamp.sequence);
        writer.u32(replica);
        writer.u32(crc32c(sector.first(kCrcAt)));
    }
}

PagePayload DecodedPage::payload() const {
    INVARIANT(health == PageHealth::whole, "only a whole page has one payload");
    PagePayload joined;
    for (std::size_t i = 0; i < kSectorsPerPage; ++i) {
        std::memcpy(joined.data() + i * kSectorPayload, sectors[i].payload.data(), kSectorPayload);
    }
    return joined;
}

DecodedPage decode_page(ConstPageBytes bytes, PageKind kind, std::uint64_t offset, const ReplicaId& replica) {
    DecodedPage page;
    if (all_zero(bytes)) {
        page.health = PageHealth::blank;
        return page;
    }
    const std::uint32_t wanted_replica = replica_stamp(replica);
    std::size_t sound = 0;
    bool newer = false;
    bool foreign = false;
    bool mixed = false;
    std::uint32_t first_replica = 0;
    for (std::size_t i = 0; i < kSectorsPerPage; ++i) {
        const auto sector = bytes.subspan(i * kSectorBytes, kSectorBytes);
        const SectorStamp stamp = read_stamp(sector);
        if (!stamp.crc_right) continue;
        newer = newer || stamp.version != kDiskVersion;
        if (i == 0) first_replica = stamp.replica;
        const bool right_place =
            stamp.offset == offset && stamp.index == i && stamp.kind == static_cast<std::uint8_t>(kind);
        const bool right_replica =
            replica.is_nil() ? stamp.replica == first_replica : stamp.replica == wanted_replica;
        foreign = foreign || !right_place || !right_replica;
        if (stamp.version != kDiskVersion || !right_place || !right_replica || stamp.sequence == 0) continue;
        mixed = mixed || (sound > 0 && stamp.sequence != page.sequence);
        page.sequence = std::max(page.sequence, stamp.sequence);
        page.sectors[i] = {true, stamp.sequence, sector.first(kSectorPayload)};
        ++sound;
    }
    if (sound == kSectorsPerPage) {
        page.health = mixed ? PageHealth::torn : PageHealth::whole;
    } else {
        page.sequence = 0;
        page.health = newer ? PageHealth::newer_version : foreign ? PageHealth::foreign : PageHealth::damaged;
    }
    return page;
}

}  // namespace gemel::formats
