#include "core/formats/superblock.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/invariant.hpp"
#include "core/formats/layout.hpp"

namespace gemel::formats {
namespace {

enum Flag : std::uint32_t {
    kInAckSet = 1U << 0,
    kPeerInAckSet = 1U << 1,
    kJoinPending = 1U << 2,
    kPrimary = 1U << 3,
    kAllFlags = (1U << 4) - 1,
};

std::uint32_t flags_of(const Superblock& s) {
    return (s.in_ack_set ? kInAckSet : 0U) | (s.peer_in_ack_set ? kPeerInAckSet : 0U) |
           (s.join_pending ? kJoinPending : 0U) | (s.primary ? kPrimary : 0U);
}

bool known_state(std::uint8_t state) {
    return state == static_cast<std::uint8_t>(ReplicaState::up_to_date) ||
           state == static_cast<std::uint8_t>(ReplicaState::inconsistent) ||
           state == static_cast<std::uint8_t>(ReplicaState::failed);
}

const char* describe(PageHealth health) {
    switch (health) {
        case PageHealth::blank: return "was never written";
        case PageHealth::whole: return "is whole";
        case PageHealth::torn: return "is an unfinished write";
        case PageHealth::damaged: return "is damaged";
        case PageHealth::newer_version: return "is of a newer format";
        case PageHealth::foreign: return "belongs to another place";
    }
    return "is damaged";
}

struct Slot {
    DecodedPage page;
    Result<Superblock> contents;
};

Slot read_slot(ConstPageBytes bytes, std::uint64_t offset) {
    return {decode_page(bytes, PageKind::superblock, offset, ReplicaId{}), decode_superblock(bytes, offset)};
}

}  // namespace

void encode_superblock(const Superblock& s, PageBytes out) {
    INVARIANT(s.ancestors.size() <= VolumeRecord::kMaxAncestors, "the record bounds its ancestors, so do we");
    INVARIANT(known_state(static_cast<std::uint8_t>(s.state)), "other states are the record's to say");
    PagePayload payload{};
    ByteWriter writer{std::span<std::byte>(payload)};
    writer.id(s.cluster);
    writer.id(s.volume);
    writer.id(s.replica);
    writer.u64(s.size_bytes);
    writer.id(s.generation.id);
    writer.id(s.generation.parent);
    writer.u64(s.generation.counter);
    writer.u8(static_cast<std::uint8_t>(s.state));
    writer.zeroes(3);
    writer.u32(flags_of(s));
    writer.id(s.peer);
    writer.u64(s.refused_epoch);
    writer.u64(s.granted_epoch);
    writer.id(s.tracked_peer);
    writer.id(s.tracked_since);
    writer.uuid(s.complete_in.boot);
    writer.uuid(s.complete_in.nonce);
    writer.u32(static_cast<std::uint32_t>(s.ancestors.size()));
    for (const auto& ancestor : s.ancestors) writer.id(ancestor);
    encode_page({PageKind::superblock, Layout::superblock_offset(s.sequence), s.sequence, s.replica},
                std::span<const std::byte, kPagePayload>(payload), out);
}

Result<Superblock> decode_superblock(ConstPageBytes bytes, std::uint64_t offset) {
    const DecodedPage page = decode_page(bytes, PageKind::superblock, offset, ReplicaId{});
    if (page.health == PageHealth::newer_version) {
        return fail(ErrorCode::unsupported,
                    fmt::format("superblock at {} is of a newer format than {}: use a newer gemel", offset,
                                kDiskVersion));
    }
    if (page.health != PageHealth::whole) {
        return fail(ErrorCode::corrupt, fmt::format("superblock at {} {}", offset, describe(page.health)));
    }
    const PagePayload payload = page.payload();
    ByteReader reader{std::span<const std::byte>(payload)};
    Superblock s;
    s.sequence = page.sequence;
    s.cluster = reader.id<ClusterId>();
    s.volume = reader.id<VolumeId>();
    s.replica = reader.id<ReplicaId>();
    s.size_bytes = reader.u64();
    s.generation.id = reader.id<GenerationId>();
    s.generation.parent = reader.id<GenerationId>();
    s.generation.counter = reader.u64();
    const std::uint8_t state = reader.u8();
    reader.skip(3);
    const std::uint32_t flags = reader.u32();
    s.peer = reader.id<ReplicaId>();
    s.refused_epoch = reader.u64();
    s.granted_epoch = reader.u64();
    s.tracked_peer = reader.id<ReplicaId>();
    s.tracked_since = reader.id<GenerationId>();
    s.complete_in.boot = reader.uuid();
    s.complete_in.nonce = reader.uuid();
    const std::uint32_t ancestors = reader.u32();
    const bool sane = reader.ok() && known_state(state) && (flags & ~kAllFlags) == 0 &&
                      Layout::valid_size(s.size_bytes) && ancestors <= VolumeRecord::kMaxAncestors &&
                      Layout::superblock_offset(s.sequence) == offset;
    if (!sane)
        return fail(ErrorCode::corrupt, fmt::format("superblock at {} has a field out of range", offset));
    for (std::uint32_t i = 0; i < ancestors; ++i) s.ancestors.push_back(reader.id<GenerationId>());
    s.state = static_cast<ReplicaState>(state);
    s.in_ack_set = (flags & kInAckSet) != 0;
    s.peer_in_ack_set = (flags & kPeerInAckSet) != 0;
    s.join_pending = (flags & kJoinPending) != 0;
    s.primary = (flags & kPrimary) != 0;
    return s;
}

Result<ChosenSuperblock> choose_superblock(ConstPageBytes slot_a, ConstPageBytes slot_b) {
    const std::array<Slot, 2> slots{read_slot(slot_a, kSuperblockA), read_slot(slot_b, kSuperblockB)};
    const bool a = slots[0].contents.has_value();
    const bool b = slots[1].contents.has_value();
    if (a && b) {
        if (slots[0].contents->replica != slots[1].contents->replica) {
            return fail(ErrorCode::corrupt,
                        "the two superblocks belong to different replicas: this backing was copied "
                        "over another one; recreate the replica");
        }
        const std::size_t newer = slots[0].contents->sequence > slots[1].contents->sequence ? 0 : 1;
        return ChosenSuperblock{*slots[newer].contents, true};
    }
    for (const Slot& slot : slots) {
        if (!slot.contents && slot.contents.error().code == ErrorCode::unsupported) {
            return tl::unexpected<Error>(slot.contents.error());
        }
    }
    if (!a && !b) {
        return fail(ErrorCode::corrupt,
                    fmt::format("no readable superblock ({}; {}): this is not a gemel replica or its "
                                "metadata is lost; recreate the replica",
                                slots[0].contents.error().message, slots[1].contents.error().message));
    }
    const Slot& good = a ? slots[0] : slots[1];
    const Slot& other = a ? slots[1] : slots[0];
    // The other slot may only be passed over when its contents provably never were the newest completed
    // write.
    const bool excused = other.page.health == PageHealth::torn;
    return ChosenSuperblock{*good.contents, excused};
}

}  // namespace gemel::formats
