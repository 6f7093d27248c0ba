#include "sim/checkers/stable_before.hpp"

#include <algorithm>
#include <variant>

#include <fmt/format.h>

namespace gemel::sim {
namespace {

std::string who(std::uint32_t node) {
    return fmt::format("node{}", node + 1);
}

}  // namespace

StableBeforeChecker::StableBeforeChecker(TrackingChecker& tracking, Duration lease)
    : tracking_(tracking), lease_(lease) {}

Breach StableBeforeChecker::tracked(const std::string& what) const {
    return what.empty() ? Breach{} : Breach{"D3", what};
}

// Whatever may renew a lease was sent before it was answered: an upper bound that needs no number matching.
void StableBeforeChecker::peer_input(std::uint32_t node, Instant local,
                                     const replication::PeerMessageIn& in) {
    Side& side = sides_[node];
    if (std::holds_alternative<replication::HeartbeatAckMessage>(in.message)) {
        side.renewed = std::max(side.renewed, local);
        side.renewed_ever = true;
    }
    const auto& known = tracking_.metadata(node).superblock();
    if (!known) return;
    const auto ended = [&known](std::uint64_t epoch) {
        return epoch != 0 && (epoch <= known->refused_epoch || epoch < known->granted_epoch);
    };
    const auto remember = [&](const auto& message) {
        const std::pair key{in.session, message.request};
        if (ended(message.epoch)) side.refused.insert(key);
    };
    if (const auto* write = std::get_if<replication::WriteMessage>(&in.message)) remember(*write);
    if (const auto* zero = std::get_if<replication::ZeroMessage>(&in.message)) remember(*zero);
    if (const auto* flush = std::get_if<replication::FlushMessage>(&in.message)) remember(*flush);
}

// The newest record by the engine's own rule: a lineage that was replaced never comes back.
void StableBeforeChecker::told(std::uint32_t node, const CommittedVolume& committed) {
    Side& side = sides_[node];
    if (committed.record.replicas.size() < 2) return;
    if (committed.lineage == side.lineage && committed.revision <= side.revision) return;
    if (std::ranges::find(side.former_lineages, committed.lineage) != side.former_lineages.end()) return;
    if (committed.lineage != side.lineage) side.former_lineages.push_back(side.lineage);
    side.lineage = committed.lineage;
    side.revision = committed.revision;
    const ReplicaRecord& mine = committed.record.replicas[node];
    const ReplicaRecord& other = committed.record.replicas[1 - node];
    side.counts = mine.in_ack_set;
    const auto& owner = committed.record.owner;
    side.own_epoch = owner && owner->node == mine.node ? owner->epoch : 0;
    side.alone_in.reset();
    if (mine.in_ack_set && !other.in_ack_set) side.alone_in = committed.record.generation.counter;
}

Breach StableBeforeChecker::input(std::uint32_t node, Instant local, const replication::Input& input) {
    if (const auto* renewal = std::get_if<replication::StoreRenewal>(&input)) {
        sides_[node].renewed = std::max(sides_[node].renewed, renewal->sent_at);
        sides_[node].renewed_ever = true;
        told(node, renewal->committed);
    } else if (const auto* record = std::get_if<replication::CommittedRecordIn>(&input)) {
        told(node, record->committed);
    } else if (const auto* done = std::get_if<replication::ProposalDone>(&input)) {
        if (done->current) told(node, *done->current);
    } else if (const auto* message = std::get_if<replication::PeerMessageIn>(&input)) {
        peer_input(node, local, *message);
    }
    return tracked(tracking_.metadata_changed());
}

Breach StableBeforeChecker::peer_output(std::uint32_t node, const replication::PeerSend& send) {
    const auto& known = tracking_.metadata(node).superblock();
    if (!known) return {};
    if (const auto* ack = std::get_if<replication::AckMessage>(&send.message)) {
        if (ack->status == replication::AckStatus::ok && ack->epoch != 0 &&
            sides_[node].refused.contains({send.session, ack->request})) {
            return {"D13",
                    fmt::format("{} acknowledges a request of epoch {}, which it had ended durably (refused "
                                "{}, granted {}) before the request came",
                                who(node), ack->epoch, known->refused_epoch, known->granted_epoch)};
        }
    } else if (const auto* beat = std::get_if<replication::HeartbeatAckMessage>(&send.message)) {
        if (!beat->refused && beat->epoch <= known->refused_epoch) {
            return {"C2", fmt::format("{} renews the lease of epoch {} that it has durably refused",
                                      who(node), beat->epoch)};
        }
    } else if (std::holds_alternative<replication::ResyncReadyMessage>(send.message)) {
        if (known->state != ReplicaState::inconsistent) {
            return {"D10", fmt::format("{} asks for resync data and its stable superblock does not say "
                                       "Inconsistent",
                                       who(node))};
        }
    } else if (std::holds_alternative<replication::ResyncCompareMessage>(send.message) ||
               std::holds_alternative<replication::ResyncWriteMessage>(send.message)) {
        if (!sides_[node].alone_in) {
            return {"D7", fmt::format("{} sends resync data, and no committed record names it alone: the "
                                      "target still counts as current",
                                      who(node))};
        }
    }
    return {};
}

Breach StableBeforeChecker::proposal(std::uint32_t node, const replication::Propose& propose) {
    const VolumeRecord& next = propose.next;
    const auto& mine = tracking_.metadata(node).superblock();
    if (!mine) return {};
    if (propose.kind != replication::ProposalKind::peer_joined) {
        const bool fresh = next.generation.id != mine->generation.id &&
                           std::ranges::find(mine->ancestors, next.generation.id) == mine->ancestors.end();
        if (fresh) return {};
        return {"H37", fmt::format("{} proposes a leave that keeps generation {}", who(node),
                                   next.generation.counter)};
    }
    for (std::uint32_t one = 0; one < 2; ++one) {
        const auto& written = tracking_.metadata(one).superblock();
        if (!written) continue;
        if (written->generation.id == next.generation.id && written->join_pending) continue;
        return {"H37", fmt::format("{} proposes a join and {} has not written it: generation {}, join {}",
                                   who(node), who(one), written->generation.counter,
                                   written->join_pending ? "pending" : "not pending")};
    }
    return {};
}

Breach StableBeforeChecker::output(std::uint32_t node, Instant local, const replication::Output& output) {
    if (const auto* write = std::get_if<replication::DiskWrite>(&output)) {
        return tracked(tracking_.write_begins(node, write->offset, write->length));
    }
    if (const auto* zero = std::get_if<replication::DiskZero>(&output)) {
        return tracked(tracking_.write_begins(node, zero->offset, zero->length));
    }
    if (const auto* send = std::get_if<replication::PeerSend>(&output)) return peer_output(node, *send);
    if (const auto* propose = std::get_if<replication::Propose>(&output)) return proposal(node, *propose);
    if (const auto* refused = std::get_if<replication::EpochRefused>(&output)) {
        const auto& known = tracking_.metadata(node).superblock();
        const Side& side = sides_[node];
        const bool gives_back = !side.attached && (!side.counts || side.own_epoch == refused->epoch);
        if (known && !side.failed && !gives_back && known->refused_epoch < refused->epoch) {
            return {"C2", fmt::format("{} says that it refuses epoch {} before that is stable", who(node),
                                      refused->epoch)};
        }
    }
    if (const auto* notice = std::get_if<replication::Notice>(&output)) {
        const bool fails = notice->kind == replication::NoticeKind::disk_error &&
                           notice->text.find("this replica is failed") != std::string::npos;
        sides_[node].failed = sides_[node].failed || fails;
        if (notice->kind == replication::NoticeKind::attached) sides_[node].attached = true;
    }
    if (const auto* done = std::get_if<replication::FrontComplete>(&output)) {
        const Side& side = sides_[node];
        const bool over = !side.renewed_ever || local >= side.renewed + lease_;
        if (done->status == replication::IoStatus::ok && over) {
            return {
                "C2",
                fmt::format("{} answers its guest {:.3f} s after the last renewal of its lease can have been "
                            "sent",
                            who(node), (local - side.renewed).seconds())};
        }
    }
    return {};
}

Breach StableBeforeChecker::acknowledged(std::uint32_t node, std::uint64_t epoch, bool read) {
    const auto& known = tracking_.metadata(node).superblock();
    if (!known) return {};
    if (known->granted_epoch < epoch) {
        return {"D13", fmt::format("{} answers its guest in epoch {}, its stable superblock knows only {}",
                                   who(node), epoch, known->granted_epoch)};
    }
    const auto& alone = sides_[node].alone_in;
    if (!read && alone && known->generation.counter < *alone) {
        return {"D2",
                fmt::format("{} acknowledges alone before generation {} is stable: its superblock says {}",
                            who(node), *alone, known->generation.counter)};
    }
    return {};
}

}  // namespace gemel::sim
