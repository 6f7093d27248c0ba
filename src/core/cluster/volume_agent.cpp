#include "core/cluster/volume_agent.hpp"

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

using replication::ProposalDone;
using replication::ProposalKind;
using replication::ProposalOutcome;

void VolumeAgent::blockd_up(const BlockdUp& up) {
    context_.blockd_up = true;
    context_.blockd_process = up.process;
    handed_.clear();
    proposing_.clear();
    told_gone_.clear();
}

bool VolumeAgent::owns_any() const {
    for (const auto& [name, row] : context_.gated.volumes) {
        const auto& owner = row.record.owner;
        if (owner && context_.this_life(*owner)) return true;
    }
    return false;
}

std::string VolumeAgent::refusal(const Row<VolumeRecord>& row, const replication::Propose& propose) const {
    const VolumeRecord& now = row.record;
    const VolumeRecord& next = propose.next;
    if (row.revision != propose.expected_revision) return "the record has another revision";
    if (context_.gated.lineage_id() != propose.expected_lineage) return "the store has another lineage";
    if (next.id != now.id || next.name != now.name || next.size_bytes != now.size_bytes ||
        next.owner != now.owner || next.epoch != now.epoch || next.replicas.size() != now.replicas.size()) {
        return "it changes more than the ack set";
    }
    for (std::size_t i = 0; i < next.replicas.size(); ++i) {
        if (next.replicas[i].replica != now.replicas[i].replica ||
            next.replicas[i].node != now.replicas[i].node) {
            return "it changes a replica's identity";
        }
    }
    const bool owner_here = now.owner && context_.this_life(*now.owner);
    if (!owner_here && now.owner && !proven_gone(context_.gated, now.owner->node, now.owner->incarnation)) {
        return "this node does not own the volume";
    }
    if (!in_ack_set(now, context_.config.name)) return "this node's replica is not in the ack set";
    if (ack_set(next).empty()) return "the ack set would be empty";
    const bool leaving = propose.kind != ProposalKind::peer_joined;
    if (leaving && (next.generation.parent != now.generation.id ||
                    next.generation.counter != now.generation.counter + 1)) {
        return "leaving makes a new generation";
    }
    return {};
}

void VolumeAgent::answer(const VolumeId& volume, std::uint64_t number, ProposalOutcome outcome,
                         std::optional<CommittedVolume> current) {
    proposing_.erase(volume);
    context_.emit(BlockdProposalDone{volume, ProposalDone{number, outcome, std::move(current)}});
}

void VolumeAgent::proposal(const BlockdProposal& in) {
    const auto under_way = proposing_.find(in.volume);
    if (under_way != proposing_.end() && under_way->second == in.propose.proposal) return;
    const auto* row = context_.gated.volume_by_id(in.volume);
    if (row == nullptr || !context_.gated.lineage) {
        return answer(in.volume, in.propose.proposal, ProposalOutcome::unknown, std::nullopt);
    }
    const std::string name = row->record.name;
    // Asked again of a new process of this daemon, whose predecessor had it committed and died (C4; seed
    // 17131). Who leaves makes a generation that nobody else could have made.
    if (in.propose.kind != ProposalKind::peer_joined &&
        names_generation(row->record, in.propose.next.generation.id)) {
        return answer(in.volume, in.propose.proposal, ProposalOutcome::committed,
                      context_.gated.committed_volume(name));
    }
    if (const auto why = refusal(*row, in.propose); !why.empty()) {
        context_.log("info", "volume/" + name + ": proposal refused: " + why);
        return answer(in.volume, in.propose.proposal, ProposalOutcome::refused,
                      context_.gated.committed_volume(name));
    }
    if (mutant("leave_without_new_revision") && in.propose.kind == ProposalKind::peer_left &&
        ack_set(in.propose.next) == ack_set(row->record)) {
        return answer(in.volume, in.propose.proposal, ProposalOutcome::committed,
                      CommittedVolume{in.propose.next, row->revision, context_.gated.lineage_id()});
    }
    proposing_[in.volume] = in.propose.proposal;
    Txn txn;
    context_.reads(txn, keys::volume(name), *row);
    txn.puts.push_back({keys::volume(name), encode(in.propose.next), 0});
    const LineageId lineage = context_.gated.lineage_id();
    context_.commit(std::move(txn), false, true, [this, in, name, lineage](const JobResult& result) {
        if (result.committed) {
            const char* what = in.propose.kind == ProposalKind::peer_joined ? "the peer's replica is UpToDate"
                               : in.propose.kind == ProposalKind::local_failed ? "the local replica is Failed"
                                                                               : "the peer left the ack set";
            context_.event(in.propose.kind == ProposalKind::peer_joined ? "info" : "warning",
                           "volume.ack-set", "volume/" + name, what);
            return answer(in.volume, in.propose.proposal, ProposalOutcome::committed,
                          CommittedVolume{in.propose.next, result.revision, lineage});
        }
        answer(in.volume, in.propose.proposal, ProposalOutcome::refused,
               context_.gated.committed_volume(name));
    });
}

void VolumeAgent::needs_record(const BlockdNeedsRecord& need) {
    handed_.erase(need.volume);
}

void VolumeAgent::probe(const ReadDone& done, const LineageId& lineage) {
    if (lineage.is_nil()) return;
    for (const auto& [name, row] : context_.gated.volumes) {
        const auto& owner = row.record.owner;
        if (!owner || owner->node != context_.config.name) continue;
        for (const auto& value : done.values) {
            if (value.key != keys::volume(name)) continue;
            auto record = value.mod_revision == row.revision ? Result<VolumeRecord>(row.record)
                                                             : decode<VolumeRecord>(value.value);
            if (!record) continue;
            BlockdRenew renew{
                record->id, {done.sent_at, CommittedVolume{*record, value.mod_revision, lineage}}, {}};
            const bool mine = record->owner && context_.this_life(*record->owner) &&
                              record->owner->epoch == owner->epoch && !record->owner->revoking;
            if (mine) renew.guard_until = done.sent_at + milliseconds(context_.timing().lease_ms);
            context_.emit(std::move(renew));
        }
    }
}

void VolumeAgent::hand_over(const Row<VolumeRecord>& row) {
    Handed& handed = handed_[row.record.id];
    const LineageId lineage = context_.gated.lineage_id();
    if (handed.revision == row.revision && handed.lineage == lineage) return;
    handed = {row.revision, lineage};
    context_.emit(BlockdRecord{CommittedVolume{row.record, row.revision, lineage}});
}

void VolumeAgent::evaluate() {
    if (!context_.blockd_up || !context_.gated.lineage || !context_.gated.refused.empty()) return;
    if (context_.withdrawn) return;  // its volumes are closed: no record may open one again
    std::set<VolumeId> here;
    for (const auto& [name, row] : context_.gated.volumes) {
        const VolumeRecord& volume = row.record;
        if (replica_on(volume, context_.config.name) == nullptr) continue;
        // An empty ack set: being made or being deleted; blockd has nothing to attach.
        if (ack_set(volume).empty()) continue;
        here.insert(volume.id);
        hand_over(row);
        if (volume.owner && volume.owner->revoking && volume.owner->node != context_.config.name)
            context_.epoch_refused(volume.id, volume.owner->epoch);
    }
    for (auto at = handed_.begin(); at != handed_.end();) {
        if (here.contains(at->first)) {
            ++at;
        } else {
            context_.emit(BlockdDetach{at->first});
            context_.volumes.erase(at->first);
            at = handed_.erase(at);
        }
    }
    for (const auto& [name, row] : context_.gated.nodes) {
        if (name == context_.config.name || !node_gone(context_.gated, name)) continue;
        if (told_gone_.insert({name, row.record.incarnation}).second) {
            context_.emit(BlockdPeerProvenDown{name, row.record.incarnation});
        }
    }
}

}  // namespace gemel::cluster
