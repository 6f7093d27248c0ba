#include "core/replication/verdict.hpp"

#include <algorithm>
#include <vector>

namespace gemel::replication {
namespace {

const ReplicaRecord* find_replica(const VolumeRecord& record, const ReplicaId& replica) {
    const auto found = std::ranges::find(record.replicas, replica, &ReplicaRecord::replica);
    return found == record.replicas.end() ? nullptr : &*found;
}

bool names(const std::vector<GenerationId>& ancestors, const GenerationId& id) {
    return std::ranges::find(ancestors, id) != ancestors.end();
}

// `side` has seen generation `id`: it is its own or one of its ancestors
bool contains(const HandshakeState& side, const GenerationId& id) {
    return side.generation.id == id || names(side.ancestors, id);
}

bool has_history(const HandshakeState& side) {
    return !side.generation.is_blank();
}

bool diverged(const HandshakeState& a, const HandshakeState& b) {
    return has_history(a) && has_history(b) && !contains(a, b.generation.id) && !contains(b, a.generation.id);
}

// The side's generation is one the record knows as its own or as an ancestor.
bool in_record(const HandshakeState& side, const VolumeRecord& record) {
    return !has_history(side) || side.generation.id == record.generation.id ||
           names(record.ancestors, side.generation.id);
}

// May be a source: in the committed ack set, at its generation, and its bytes are one point in time.
bool is_current(const HandshakeState& side, const VolumeRecord& record) {
    return find_replica(record, side.replica)->in_ack_set && side.metadata_readable && has_history(side) &&
           side.state == ReplicaState::up_to_date && side.generation.id == record.generation.id;
}

bool is_owner(const HandshakeState& side, const VolumeRecord& record) {
    return record.owner && record.owner->node == find_replica(record, side.replica)->node &&
           record.owner->incarnation == side.incarnation;
}

bool remembers(const HandshakeState& side, const HandshakeState& other) {
    return side.known_peer_process == other.process && side.known_peer_incarnation == other.incarnation;
}

bool has_differences(const HandshakeState& side) {
    return side.dirty_bytes > 0 || side.unsettled_bytes > 0;
}

// Both are current. Two processes that remember each other lost nothing but messages, and the owner sends
// those again; bits, though, are differences for good. When one of them is new, what is not known stable on
// both sides may be missing on either.
bool needs_repair(const HandshakeState& a, const HandshakeState& b) {
    if (remembers(a, b) && remembers(b, a)) return a.dirty_bytes > 0 || b.dirty_bytes > 0;
    return has_differences(a) || has_differences(b);
}

// How much of what was acknowledged but not flushed this side can have lost: nothing while its process lives,
// nothing but a swallowed error when only the process is new, anything after a reboot.
int memory_of(const HandshakeState& side) {
    if (!side.known_peer_process.is_nil()) return 2;
    return side.outlived_process ? 1 : 0;
}

// Both are current and differ: what was flushed is on both, so either may be the source. The live owner must
// be (its guest goes on); then the side that lost least, so that the survivor's version wins (W1, W2); then
// the one that knows of differences, then the later grant; the id only breaks a tie.
bool first_is_source(const HandshakeState& a, const HandshakeState& b, const VolumeRecord& record) {
    // A node that was granted the lease after its reboot serves nothing yet, and may have lost what the other
    // kept.
    const bool a_lives = is_owner(a, record) && memory_of(a) > 0;
    const bool b_lives = is_owner(b, record) && memory_of(b) > 0;
    if (a_lives != b_lives) return a_lives;
    if (memory_of(a) != memory_of(b)) return memory_of(a) > memory_of(b);
    if (has_differences(a) != has_differences(b)) return has_differences(a);
    if (a.granted_epoch != b.granted_epoch) return a.granted_epoch > b.granted_epoch;
    return a.replica < b.replica;
}

// The source's bitmap names every block in which the target can differ.
bool tracks(const HandshakeState& source, const HandshakeState& target) {
    if (!target.metadata_readable || source.tracked_peer != target.replica) return false;
    if (source.tracked_since.is_nil()) return target.generation.is_blank();
    return !target.generation.is_blank() && contains(target, source.tracked_since);
}

Verdict resync(bool mine_is_source, bool by_bitmap) {
    if (mine_is_source) return by_bitmap ? Verdict::source_bitmap : Verdict::source_full;
    return by_bitmap ? Verdict::target_bitmap : Verdict::target_full;
}

}  // namespace

Verdict mirrored(Verdict verdict) noexcept {
    switch (verdict) {
        case Verdict::source_bitmap: return Verdict::target_bitmap;
        case Verdict::source_full: return Verdict::target_full;
        case Verdict::target_bitmap: return Verdict::source_bitmap;
        case Verdict::target_full: return Verdict::source_full;
        case Verdict::leave_then_source: return Verdict::leave_then_target;
        case Verdict::leave_then_target: return Verdict::leave_then_source;
        case Verdict::peer_diskless: return Verdict::diskless;
        case Verdict::diskless: return Verdict::peer_diskless;
        case Verdict::wait_record:
        case Verdict::no_resync:
        case Verdict::split_brain:
        case Verdict::no_source:
        case Verdict::foreign: return verdict;
    }
    return verdict;
}

std::string_view to_string(Verdict verdict) noexcept {
    switch (verdict) {
        case Verdict::wait_record: return "wait-record";
        case Verdict::no_resync: return "no-resync";
        case Verdict::source_bitmap: return "source-bitmap";
        case Verdict::source_full: return "source-full";
        case Verdict::target_bitmap: return "target-bitmap";
        case Verdict::target_full: return "target-full";
        case Verdict::leave_then_source: return "leave-then-source";
        case Verdict::leave_then_target: return "leave-then-target";
        case Verdict::split_brain: return "split-brain";
        case Verdict::no_source: return "no-source";
        case Verdict::foreign: return "foreign";
        case Verdict::peer_diskless: return "peer-diskless";
        case Verdict::diskless: return "diskless";
    }
    return "unknown";
}

Verdict verdict(const HandshakeState& mine, const HandshakeState& peer, const CommittedVolume& committed) {
    const VolumeRecord& record = committed.record;
    // Who is this? A clone of my own disk, a stranger, or a backing of the wrong size is never written to
    // (G6, Z5).
    if (mine.replica == peer.replica) return Verdict::foreign;
    if (find_replica(record, mine.replica) == nullptr || find_replica(record, peer.replica) == nullptr)
        return Verdict::foreign;
    if (mine.size_bytes != record.size_bytes || peer.size_bytes != record.size_bytes) return Verdict::foreign;
    // Same facts on both sides? Stores that were forced apart show here as histories that do not contain each
    // other.
    if (diverged(mine, peer)) return Verdict::split_brain;
    if (mine.record_lineage != peer.record_lineage) return Verdict::wait_record;
    if (mine.record_revision != peer.record_revision) return Verdict::wait_record;
    // A disk that leads the record: the store lost state, or this record is old. One beside it: another
    // history (D7).
    const bool mine_outside = !in_record(mine, record);
    const bool peer_outside = !in_record(peer, record);
    if (mine_outside || peer_outside) {
        const bool leads = (mine_outside && mine.generation.counter > record.generation.counter) ||
                           (peer_outside && peer.generation.counter > record.generation.counter);
        return leads ? Verdict::wait_record : Verdict::split_brain;
    }
    const bool mine_current = is_current(mine, record);
    const bool peer_current = is_current(peer, record);
    if (!mine_current && !peer_current) return Verdict::no_source;
    if (mine_current && peer_current) {
        if (!needs_repair(mine, peer)) return Verdict::no_resync;
        return first_is_source(mine, peer, record) ? Verdict::leave_then_source : Verdict::leave_then_target;
    }
    const HandshakeState& source = mine_current ? mine : peer;
    const HandshakeState& target = mine_current ? peer : mine;
    // An undecided join may still be committed, by a proposal on its way: only a new generation forbids that
    // (H37).
    if (find_replica(record, target.replica)->in_ack_set || source.join_pending) {
        return mine_current ? Verdict::leave_then_source : Verdict::leave_then_target;
    }
    // A disk that failed under a living process is never written again: its node may serve its guest from the
    // source, and nothing else (K2).
    if (target.state == ReplicaState::failed) {
        if (!is_owner(target, record)) return Verdict::no_source;
        return mine_current ? Verdict::peer_diskless : Verdict::diskless;
    }
    return resync(mine_current, tracks(source, target));
}

}  // namespace gemel::replication
