// What a node's control plane orders from blockd, the peer's clusterd, fence devices, libvirt and the guard.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/formats/records.hpp"
#include "sim/world/control_node.hpp"

namespace gemel::sim {

using namespace cluster;  // NOLINT: the node speaks the control plane's words

void ControlNode::execute(const Output& output) {
    std::visit([this](const auto& order) { run(order); }, output);
}

void ControlNode::through(Pipe& pipe, std::function<void()> work) {
    pipe.last = std::max(pipe.last, parts_.tasks.now() + microseconds(random_.between(20, 400)));
    parts_.tasks.at(pipe.last, std::move(work));
}

// ---- blockd
// ------------------------------------------------------------------------------------------------------

void ControlNode::to_blockd(std::function<void(BlockNode&)> work) {
    through(to_blockd_, [this, life = parts_.world.blockd_life(node_), work = std::move(work)] {
        if (parts_.world.blockd_up(node_) && parts_.world.blockd_life(node_) == life)
            work(parts_.world.block(node_));
    });
}

void ControlNode::from_blockd(std::function<void()> work) {
    if (clusterd_ == nullptr) return;
    through(from_blockd_, [this, life = life_, work = std::move(work)] {
        if (life == life_ && clusterd_ != nullptr) work();
    });
}

// clusterd (again) finds blockd: status, sessions and open proposals are told anew.
void ControlNode::blockd_started() {
    if (clusterd_ == nullptr || blockd_told_ || !parts_.world.blockd_up(node_)) return;
    blockd_told_ = true;
    from_blockd([this] {
        const SessionId process = SessionId::from_random(node_, parts_.world.blockd_life(node_));
        post(BlockdUp{process});
        if (session_) post(*session_);
        if (open_proposal_) post(BlockdProposal{volume_, *open_proposal_});
    });
    if (attached_) blockd_view();
}

void ControlNode::blockd_died() {
    attached_ = attaching_ = false;
    refusals_.clear();
    open_proposal_.reset();
    if (session_) session_->up = false;
    if (!std::exchange(blockd_told_, false)) return;
    from_blockd([this] { post(BlockdDown{}); });
}

void ControlNode::blockd_view() {
    if (clusterd_ == nullptr || view_due_ || !parts_.world.block(node_).running()) return;
    view_due_ = true;
    from_blockd([this] {
        view_due_ = false;
        const BlockNode& block = parts_.world.block(node_);
        if (!block.running() || volume_.is_nil()) return;
        const Guest& guest = parts_.guest;
        const bool connected = guest.alive() && guest.node() == node_ && guest.connected() &&
                               guest.epoch() == block.view().epoch;
        post(BlockdVolume{volume_, block.view(), connected ? 1U : 0U});
    });
}

void ControlNode::blockd_session(bool up, const PeerIdentity& peer) {
    session_ = BlockdSession{kNodeNames[1 - node_], peer.incarnation, up, {"link1", "link2"}};
    from_blockd([this, session = *session_] { post(session); });
}

void ControlNode::blockd_proposal(const replication::Propose& propose) {
    open_proposal_ = propose;
    from_blockd([this, propose] { post(BlockdProposal{propose.next.id, propose}); });
}

void ControlNode::blockd_needs_record(std::uint64_t at_least_revision) {
    from_blockd([this, at_least_revision] { post(BlockdNeedsRecord{volume_, at_least_revision}); });
}

void ControlNode::blockd_epoch_refused(std::uint64_t epoch) {
    for (auto& refusal : std::exchange(refusals_, {})) {
        if (refusal.epoch <= epoch) {
            from_blockd(refusal.done);
        } else {
            refusals_.push_back(std::move(refusal));
        }
    }
}

// blockd tells the guard directly
void ControlNode::lease_extended(std::uint64_t epoch, Instant until) {
    parts_.guests.guard(ha::LeaseUntil{volume_, epoch, until});
}

void ControlNode::run(const BlockdRecord& order) {
    record_ = order.committed;
    volume_ = order.committed.record.id;
    volume_key_ = keys::volume(order.committed.record.name);
    if (!parts_.world.blockd_up(node_)) return;
    if (attached_) {
        send_record();
    } else {
        attach();
    }
}

void ControlNode::send_record() {
    to_blockd([record = *record_](BlockNode& block) { block.input(replication::CommittedRecordIn{record}); });
}

void ControlNode::attach() {
    if (attaching_) return;
    attaching_ = true;
    to_blockd([this](BlockNode&) { parts_.world.attach(node_); });
    // answered when the lock was had and the engine runs
    const auto answered = [this](auto&& self, int tries) -> void {
        after(milliseconds(2), [this, self, tries] {
            if (!attaching_) return;
            if (!parts_.world.block(node_).running()) {
                if (tries < 30000) self(self, tries + 1);
                return;
            }
            attaching_ = false;
            attached_ = true;
            if (record_) send_record();
        });
    };
    answered(answered, 0);
}

void ControlNode::run(const BlockdDetach& order) {
    if (order.volume != volume_) return;
    attached_ = false;
    to_blockd([this](BlockNode&) { parts_.world.detach(node_); });
}

void ControlNode::run(const BlockdRenew& order) {
    if (!attached_) return;
    to_blockd([renewal = order.renewal](BlockNode& block) { block.input(renewal); });
}

void ControlNode::run(const BlockdProposalDone& order) {
    if (open_proposal_ && open_proposal_->proposal == order.done.proposal) {
        const VolumeRecord& truth = parts_.cluster.decided_volume();
        const auto& id = open_proposal_->next.generation.id;
        const bool landed =
            open_proposal_->kind != replication::ProposalKind::peer_joined &&
            (truth.generation.id == id || std::ranges::find(truth.ancestors, id) != truth.ancestors.end());
        if (landed && order.done.outcome == replication::ProposalOutcome::refused)
            judge("C4", "a proposal is told to be refused that was committed");
        open_proposal_.reset();
    }
    to_blockd([done = order.done](BlockNode& block) { block.input(done); });
}

void ControlNode::refuse_epoch(std::uint64_t epoch, std::function<void()> done) {
    refusals_.push_back(Refusal{epoch, std::move(done)});
    to_blockd([epoch](BlockNode& block) { block.input(replication::RefuseEpoch{epoch}); });
}

void ControlNode::run(const BlockdRefuseEpoch& order) {
    if (!attached_) return;  // blockd answers with an error: not attached
    refuse_epoch(order.epoch, [this, order] {
        parts_.counters.add("site.epoch_refused");
        post(BlockdEpochRefused{order.volume, order.epoch});
    });
}

void ControlNode::run(const BlockdPeerProvenDown& order) {
    to_blockd(
        [life = order.incarnation](BlockNode& block) { block.input(replication::PeerProvenDown{life}); });
}

void ControlNode::run(const BlockdFormat& order) {
    volume_ = order.record.id;
    to_blockd([this, order](BlockNode&) {
        for (const auto& replica : order.record.replicas) {
            if (replica.node == name_ && parts_.world.replica_id(node_) != replica.replica)
                parts_.world.make_replica(node_, order.record);
        }
        from_blockd([this, tag = order.tag] { post(BlockdDone{tag, true, "", ""}); });
    });
}

void ControlNode::run(const BlockdDelete& order) {
    from_blockd([this, tag = order.tag] { post(BlockdDone{tag, true, "", ""}); });
}

void ControlNode::run(const BlockdSetAside& order) {
    if (parts_.world.block(node_).view().role == replication::Role::primary) {
        return from_blockd([this, tag = order.tag] {
            post(BlockdDone{tag, false, "the volume is in use", "failed_precondition"});
        });
    }
    attached_ = false;
    to_blockd([this](BlockNode&) { parts_.world.detach(node_); });
    run(BlockdFormat{order.tag, order.record});
}

void ControlNode::run(const BlockdRelease& order) {
    // L3: libvirt may yet resume it here, and what it has in flight is still being written.
    if (parts_.cluster.live_move().holds(node_) && order.epoch == parts_.guests.epoch())
        judge("L3",
              fmt::format("node{} gives up the epoch of a guest that has not arrived elsewhere", node_ + 1));
    const auto done = [this, tag = order.tag] { post(BlockdDone{tag, true, "", ""}); };
    if (!attached_) return from_blockd(done);
    refuse_epoch(order.epoch, done);
}

void ControlNode::run(const BlockdCloseAll& order) {
    attached_ = false;
    to_blockd([this, tag = order.tag](BlockNode&) {
        parts_.world.detach(node_);
        from_blockd([this, tag] { post(BlockdDone{tag, true, "", ""}); });
    });
}

// ---- the other clusterd, fence devices, the operator
// -------------------------------------------------------------

void ControlNode::run(const PeerSend& order) {
    std::uint32_t other = kNodes;
    for (std::uint32_t node = 0; node < kNodes; ++node)
        if (order.to == kNodeNames[node]) other = node;
    if (other >= kWitness) return;
    if (const auto* ask = std::get_if<AskRelease>(&order.message.body))
        parts_.cluster.checker().asked_to_release(node_, ask->victim);
    struct Path {
        Cable cable;
        const char* name;
    };
    for (const Path path :
         {Path{Cable::control, "control"}, Path{Cable::link1, "link1"}, Path{Cable::link2, "link2"}}) {
        if (!order.path.empty() && order.path != path.name) continue;
        parts_.network.send(path.cable, node_, other,
                            [this, other, name = path.name, message = order.message] {
                                parts_.cluster.deliver(other, PeerMessageIn{name, message});
                            });
    }
}

void ControlNode::run(const Fence& order) {
    parts_.cluster.fence(node_, order,
                         [this, life = life_, tag = order.tag](FenceOutcome outcome, std::string why) {
                             if (life == life_) post(FenceDone{tag, outcome, std::move(why)});
                         });
}

void ControlNode::run(const ApiAnswer& order) {
    parts_.cluster.answered(node_, order);
}

void ControlNode::run(const LeaveDone& order) {
    parts_.cluster.left(node_, order);
}

void ControlNode::run(const Log& order) {
    parts_.trace.note_text(parts_.tasks.now(), node_, "clusterd", order.text);
}

// ---- libvirt and guard
// -------------------------------------------------------------------------------------------

void ControlNode::run(const ListDomains&) {
    domains_changed();
}

void ControlNode::run(const StartDomain& order) {
    after(milliseconds(random_.between(20, 300)), [this, order] { start_domain(order, 0); });
}

// The front end's socket appears when blockd has made the epoch stable; without it QEMU would not start.
void ControlNode::start_domain(const StartDomain& order, int tries) {
    constexpr int kSocketTries = 100;
    const std::uint64_t epoch = order.disks.empty() ? 0 : order.disks.front().epoch;
    const bool there = parts_.world.block(node_).served_epoch() == epoch;
    if (paused() || !there) {
        if (tries >= kSocketTries)
            return post(DomainDone{order.tag, false, "blockd does not serve its disk"});
        return after(milliseconds(50),
                     [this, order, tries] { start_domain(order, tries + (paused() ? 0 : 1)); });
    }
    if (parts_.guests.exists())
        judge("C1", fmt::format("node{} starts a guest whose domain it has", node_ + 1));
    const std::string why = parts_.guests.start(epoch);
    if (why.empty()) {
        judge("C10", parts_.cluster.checker().guest_started());
        parts_.cluster.guest_began(node_);
    }
    post(DomainDone{order.tag, why.empty(), why});
}

void ControlNode::run(const ShutdownDomain& order) {
    after(milliseconds(random_.between(5, 50)), [this, order] {
        parts_.guests.shut_down();
        post(DomainDone{order.tag, true, ""});
    });
}

void ControlNode::run(const DestroyDomain& order) {
    parts_.trace.note_text(parts_.tasks.now(), node_, "domain.destroy", order.reason);
    if (parts_.cluster.rightful(node_))
        judge("C11", parts_.cluster.checker().destroyed_rightful(node_, order.reason));
    after(milliseconds(random_.between(5, 150)), [this, order] {
        if (!paused()) parts_.guests.destroy();
        post(DomainDone{order.tag, true, ""});
    });
}

// ---- live migration
// ---------------------------------------------------------------------------------------------

void ControlNode::run(const OpenGate& order) {
    after(milliseconds(random_.between(1, 60)), [this, order] {
        const bool ok = !random_.chance(1, 25);
        if (ok) parts_.cluster.live_move().open_gate(node_, order.secret);
        post(GateDone{order.tag, ok, ok ? name_ + ":7720" : "no port is free"});
    });
}

void ControlNode::run(const CloseGate&) {
    parts_.cluster.live_move().close_gate(node_);
}

void ControlNode::run(const MigrateDomain& order) {
    after(milliseconds(random_.between(5, 80)), [this, order] {
        LiveMove::Order move;
        move.from = node_;
        move.epoch = order.disks.empty() ? 0 : order.disks.front().epoch;
        move.secret = order.migration.secret;
        move.done = [this, life = life_, tag = order.tag](bool ok, const std::string& why) {
            if (life == life_) reply_later(milliseconds(1), MigrateDone{tag, ok, why, ok ? 100U : 0U});
        };
        move.progress = [this, life = life_, uuid = order.guest.uuid] {
            if (life == life_)
                post(MigrationProgress{uuid, std::uint64_t{1} << 30, std::uint64_t{1} << 29, 1 << 27});
        };
        parts_.cluster.live_move().begin(std::move(move));
    });
}

void ControlNode::run(const CancelMigration&) {
    parts_.counters.add("migration.cancelled");
    parts_.cluster.live_move().cancel(node_);
}

void ControlNode::run(const GuardRegister& order) {
    ha::Register guarded{order.uuid, order.name, {}, order.regrant_possible, order.incoming};
    for (const auto& volume : order.volumes) guarded.volumes.push_back({volume.id, volume.epoch});
    parts_.guests.guard(guarded);
}

void ControlNode::run(const GuardRevoked& order) {
    parts_.guests.guard(ha::OwnershipLost{order.volume, order.epoch});
}

void ControlNode::run(const GuardForget& order) {
    parts_.guests.guard(ha::Forget{order.uuid});
}

// ---- what was reached
// --------------------------------------------------------------------------------------------

void ControlNode::count_states() {
    const auto states = clusterd_->states();
    const auto moved = [this](std::string_view& known, std::string_view now, const char* what) {
        if (known == now) return;
        known = now;
        parts_.counters.add(fmt::format("{}.{}", what, now));
    };
    moved(counted_.boot, states.boot, "boot");
    moved(counted_.arbiter, states.arbiter, "arbiter");
    moved(counted_.releaser, states.releaser, "releaser");
    moved(counted_.store, states.store, "store_condition");
    const auto flips = [this](bool& known, bool now, const char* gained, const char* lost) {
        if (known == now) return;
        known = now;
        parts_.counters.add(now ? gained : lost);
    };
    flips(stood_, clusterd_->has_standing(), "standing.gained", "standing.lost");
    flips(coordinated_, clusterd_->is_coordinator(), "election.elected", "election.resigned");
}

}  // namespace gemel::sim
