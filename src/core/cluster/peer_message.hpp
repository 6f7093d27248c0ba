// PeerMessage: what two clusterds say to each other, over every path they have (control and each replication
// link). Unordered, may be lost or repeated; every message names the life (incarnation) that sent it, and any
// message of an incarnation voids all proof of that incarnation's end. Encoded as one JSON object of at most
// kMaxPeerMessageBytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gemel::cluster {

inline constexpr std::size_t kMaxPeerMessageBytes = 16384;

// What a member knows of its own store; the answers decide whose store is old (design brief 3.5, scenario
// H39).
struct StoreClaim {
    bool present = false;  // has a data directory that is not set aside
    bool quorate = false;  // linearizable reads work now
    LineageId lineage;
    std::vector<LineageId> ancestors;  // of the lineage, newest first
    std::uint64_t revision = 0;
    Uuid member_nonce;                // of its data directory
    std::vector<std::string> voters;  // by its tables
    bool operator==(const StoreClaim&) const = default;
};

// What a node has left, as its daemon sees it: for refusing at once what could only fail later, and for
// showing. Never a reason to decide about ownership.
struct HostResources {
    bool known = false;
    std::uint64_t memory_free_bytes = 0;
    std::map<std::string, std::uint64_t> pool_free_bytes;
    std::vector<std::string> bridges;  // at most kMaxBridges, sorted
    static constexpr std::size_t kMaxBridges = 64;
    bool operator==(const HostResources&) const = default;
};

struct Heartbeat {
    std::uint64_t number = 0;
    std::map<std::string, std::uint64_t> heard;  // path -> newest number received from the addressee on it
    StoreClaim store;
    std::map<std::string, Uuid> committed_nonces;  // node -> member nonce in the sender's tables (vouching)
    // What the sender's own tables, however old, say of the addressee's member while that one is not acting:
    // enough to know an old image, not enough to vouch.
    Uuid your_nonce;
    std::vector<Uuid> your_former_nonces;
    std::uint32_t weight = 0;    // weighted guests running there
    bool acting = false;         // has rejoined: registered, boot check passed
    bool wants_to_join = false;  // its store is set aside or missing: waits to be added as a learner
    HostResources resources;
    bool operator==(const Heartbeat&) const = default;
};
// "Release everything and stop, I am about to fence you": victim = the life that is asked.
struct AskRelease {
    OperationId operation;
    Incarnation victim;
    LineageId lineage;
    std::uint64_t revision = 0;
    bool operator==(const AskRelease&) const = default;
};
// granted: its guests are stopped, its blockd durably acknowledges nothing more, its store member is set
// aside: all of it stable before this was sent.
struct ReleaseAnswer {
    OperationId operation;
    Incarnation victim;
    bool granted = false;
    LineageId lineage;
    std::uint64_t revision = 0;  // newest one its store had
    std::string reason;
    bool operator==(const ReleaseAnswer&) const = default;
};
// The addressee was added to the store as a learner: start the member with this.
struct JoinOffer {
    LineageId lineage;
    std::string initial_cluster;  // etcd's --initial-cluster
    bool operator==(const JoinOffer&) const = default;
};

// The guest of that migration runs at the sender's node now: its former node may give its disks up. Repeated
// until the tables show that it did.
struct GuestArrived {
    GuestId guest;
    std::string secret;  // the migration's
    bool operator==(const GuestArrived&) const = default;
};

struct PeerMessage {
    std::string from;
    Incarnation incarnation;
    std::variant<Heartbeat, AskRelease, ReleaseAnswer, JoinOffer, GuestArrived> body;
    bool operator==(const PeerMessage&) const = default;
};

std::string encode_peer_message(const PeerMessage& message);
Result<PeerMessage> decode_peer_message(std::string_view text);

}  // namespace gemel::cluster
