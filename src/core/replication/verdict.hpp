// The handshake verdict: one total, pure function over both sides' states and the committed record. It
// decides who is source, or that nobody may be; direction comes from the record, generations and crash flags
// only, never from time, size, role or bit count (D7). verdict(a, b) is always the mirror of verdict(b, a);
// the test beside this file enumerates every pair. The table with its reasons: docs/design/0002-handshake.md.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/formats/volume_record.hpp"
#include "core/replication/messages.hpp"

namespace gemel::replication {

// Values travel in VerdictMessage: never renumber.
enum class Verdict : std::uint8_t {
    wait_record = 0,    // one side's record is older, or a disk leads the record: read it again, move nothing
    no_resync = 1,      // both current and equal, or equal once the owner has sent again what is in flight
    source_bitmap = 2,  // send what the bitmaps name
    source_full = 3,    // send everything
    target_bitmap = 4,
    target_full = 5,
    leave_then_source =
        6,  // both are in the ack set but differ: the source proposes peer_left first (rule 2)
    leave_then_target = 7,
    split_brain = 8,  // each side has a history the other lacks: operator
    no_source = 9,    // no replica here is current: wait for the one that is, or the operator
    foreign = 10,     // not the same volume, not in the record, or of another size
    peer_diskless =
        11,         // the owner's disk failed, committed: it reads and writes here, the only current copy
    diskless = 12,  // ... seen from the owner
};

std::string_view to_string(Verdict verdict) noexcept;
// what the other side must have reached
Verdict mirrored(Verdict verdict) noexcept;

// `committed` is the record at mine.record_revision.
Verdict verdict(const HandshakeState& mine, const HandshakeState& peer, const CommittedVolume& committed);

}  // namespace gemel::replication
