// Superblock: who this replica is and what it last knew of the volume. Two slots, written in turn (sequence
// even: A, odd: B), each a metadata page. It lags the committed record and never leads it; a reader that
// finds the newest slot unreadable without proof that its write was cut short must not trust the older one as
// current (M6). Pure encode, decode and choice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/formats/metadata_page.hpp"
#include "core/formats/volume_record.hpp"

namespace gemel::formats {

struct Superblock {
    std::uint64_t sequence = 0;
    ClusterId cluster;
    VolumeId volume;
    ReplicaId replica;
    std::uint64_t size_bytes = 0;
    Generation generation;
    std::vector<GenerationId> ancestors;  // newest first, at most VolumeRecord::kMaxAncestors
    // What the data here is, whatever the record says: up_to_date (one point in time of `generation`),
    // inconsistent (a mixture) or failed (the device reported an error).
    ReplicaState state = ReplicaState::inconsistent;
    ReplicaId peer;                   // the other replica as last known; nil: none
    bool in_ack_set = false;          // this replica, as last learned from the record
    bool peer_in_ack_set = false;     // the other
    bool join_pending = false;        // a join of the two was written and its outcome is not known
    std::uint64_t refused_epoch = 0;  // epochs up to this one are never acknowledged again
    std::uint64_t granted_epoch = 0;  // highest epoch accepted
    // The bitmap is complete relative to tracked_peer as it was at generation tracked_since or later; for
    // every other replica, and for nil, the whole device is dirty.
    ReplicaId tracked_peer;
    GenerationId tracked_since;
    bool primary = false;  // served its granted epoch and did not close it
    // The boot in which this replica last was complete: handshaken without a resync, joined, or Primary. Only
    // in the same boot can it still have every acknowledged write, flushed or not.
    Incarnation complete_in;

    bool operator==(const Superblock&) const = default;
};

void encode_superblock(const Superblock& superblock, PageBytes out);
// Slot at `offset`; `corrupt` for pages that are not whole or say nonsense, `unsupported` for a newer format.
Result<Superblock> decode_superblock(ConstPageBytes bytes, std::uint64_t offset);

// What attaching may rely on.
struct ChosenSuperblock {
    Superblock superblock;
    // false: the other slot, which could be newer, is unreadable and not provably an unfinished write. The
    // contents are then only good for identity; freshness is unknown.
    bool newest = true;
};
Result<ChosenSuperblock> choose_superblock(ConstPageBytes slot_a, ConstPageBytes slot_b);

}  // namespace gemel::formats
