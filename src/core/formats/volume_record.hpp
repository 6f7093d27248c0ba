// VolumeRecord: what the cluster store has committed about one mirrored volume. It alone decides who is
// current and who may acknowledge; data path and control plane both take it as an input and never change it.
// Values are committed ones: nothing here is a wish or an observation. Encoded as JSON in the store
// (records_json.hpp).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"

namespace gemel {

// DRBD's disk states, worst first.
enum class ReplicaState : std::uint8_t {
    diskless,      // no backing storage attached
    failed,        // the backing device reported an error; not used again until replaced
    inconsistent,  // middle of a resync: a mixture of two points in time
    outdated,      // consistent but known to be older
    consistent,    // consistent, freshness unknown (never committed: an observation before the handshake)
    up_to_date,
};

// What "acknowledged" means for a write; see promise D1. Protocols A and B belong to a later issue.
enum class AckMode : std::uint8_t {
    writeback,  // on every replica of the ack set; stable after a FLUSH
    stable,     // stable on every replica of the ack set
};

// A data generation: a new one begins whenever the ack set loses a member.
struct Generation {
    GenerationId id;
    GenerationId parent;        // nil for the first
    std::uint64_t counter = 0;  // parent's + 1; the first is 1; 0 means "never formatted with data" (blank)

    auto operator<=>(const Generation&) const = default;
    bool is_blank() const { return counter == 0; }
};

struct ReplicaRecord {
    std::string node;  // node name
    ReplicaId
        replica;  // id of this copy; new for each format, so a replaced disk is never taken for the old one
    std::string pool;  // on that node
    ReplicaState state = ReplicaState::inconsistent;
    bool in_ack_set = false;

    auto operator<=>(const ReplicaRecord&) const = default;
};

// The one lease on a volume: who may serve reads and writes.
struct OwnerRecord {
    std::string node;
    Incarnation incarnation;  // the lease belongs to this boot only
    std::uint64_t epoch = 0;  // lease epoch; every grant raises it
    std::string secret;       // 32 hex digits, part of the front end's socket name; new for each epoch
    bool revoking = false;    // a regrant has begun: this owner's right may not be renewed any more
    std::string purpose;      // "vm:<name>" or "export"

    auto operator<=>(const OwnerRecord&) const = default;
};

// The handover grant of a live migration (docs/design/0011): the node that shall be the next owner, and the
// epoch it would have. It gives no right to anything: the front end may be opened, and what it is asked waits
// until the record names that node as the owner.
struct HandoverRecord {
    std::string node;
    Incarnation incarnation;
    std::uint64_t epoch = 0;  // above the volume's
    std::string secret;

    auto operator<=>(const HandoverRecord&) const = default;
};

struct VolumeRecord {
    static constexpr std::uint32_t kSchema = 1;
    static constexpr std::size_t kMaxAncestors = 32;

    VolumeId id;
    std::string name;
    std::uint64_t size_bytes = 0;  // multiple of 4096
    AckMode ack_mode = AckMode::writeback;
    Generation generation;
    std::vector<GenerationId>
        ancestors;  // newest first, without generation.id; the oldest fall off after kMaxAncestors
    std::vector<ReplicaRecord> replicas;  // one or two
    std::optional<OwnerRecord> owner;
    std::uint64_t epoch = 0;                 // highest epoch ever granted; stays when the owner leaves
    std::optional<HandoverRecord> handover;  // only while there is an owner, which is another node

    bool operator==(const VolumeRecord&) const = default;
};

// A record together with where it was read: the store's lineage and the key's modification revision in it.
struct CommittedVolume {
    VolumeRecord record;
    std::uint64_t revision = 0;  // etcd mod_revision of the volume's key
    LineageId lineage;

    bool operator==(const CommittedVolume&) const = default;
};

}  // namespace gemel
