// The bodies of docs/formats/control.md that both sides must read alike: a volume's view, a proposal, a
// committed record. encode and decode are each other's inverse; decode refuses what it does not know. The
// record inside is the store's own JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/error.hpp"
#include "core/replication/interface.hpp"

namespace gemel::ipc {

// View: an object with the members of replication::View; words: secondary|primary; Diskless, Failed,
// Inconsistent, Outdated, Consistent, UpToDate; StandAlone, Connecting, Handshake, Connected;
// Off, SyncSource, SyncTarget; none, not_primary, lease_lapsed, peer_lost, handshake, metadata, local_failed,
// disk_lost.
// lease_until is lease_until_ns.
nlohmann::json encode_view(const replication::View& view);
Result<replication::View> decode_view(const nlohmann::json& in);

// {"record":{...},"revision":n,"lineage":"uuid"}
nlohmann::json encode_committed(const CommittedVolume& committed);
Result<CommittedVolume> decode_committed(const nlohmann::json& in);

// {"proposal":n,"kind":"peer_left|peer_joined|local_failed","expected_revision":n,"expected_lineage":"uuid",
// "next":{...}}: the members of the "propose" event besides "event" and "volume"
nlohmann::json encode_propose(const replication::Propose& propose);
Result<replication::Propose> decode_propose(const nlohmann::json& in);

std::string_view to_string(replication::ProposalOutcome outcome);
Result<replication::ProposalOutcome> parse_outcome(std::string_view word);

nlohmann::json encode_generation(const Generation& generation);
Result<Generation> decode_generation(const nlohmann::json& in);

}  // namespace gemel::ipc
