#include "core/cluster/coordinator.hpp"

#include <algorithm>
#include <utility>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {
namespace {

constexpr Duration kFenceRetry = seconds(5);
constexpr Duration kHostForgiven = seconds(20);    // a guest that ran this long did not kill its last host
constexpr Duration kGuestForgiven = seconds(300);  // ... and after this its own crashes are forgotten too
constexpr Duration kRestartBackoff = seconds(5);   // times two for each further attempt

}  // namespace

PlanInput Coordinator::plan_input() {
    PlanInput input;
    input.tables = &context_.gated;
    input.self = context_.config.name;
    input.now = context_.now;
    input.quorate_with_majority = context_.store_quorate();
    NodeFacts self;
    self.incarnation = context_.config.incarnation;
    self.alive = self.answers = true;
    self.acting = context_.acting;
    input.nodes[context_.config.name] = self;
    for (const auto& [name, peer] : peers_.all()) {
        NodeFacts facts;
        facts.incarnation = peer.incarnation;
        facts.alive = peers_.alive(name);
        facts.acting = peers_.clusterd_alive(name) && peer.heartbeat.acting;
        // A quorum of two is the other one's member too, whatever its clusterd is heard of: after a partition
        // its arbiter may be switching us off at this moment, and then both would be off (seed 64334).
        facts.answers = peers_.answers(name) || context_.other_voter() == name;
        facts.lost_since = peers_.lost_since(name);
        const auto ask = asks_.find(name);
        facts.release_refused = ask != asks_.end() && ask->second.refused;
        input.nodes[name] = facts;
    }
    back_off();
    input.retry_not_before = retry_not_before_;
    for (const auto& [name, fence] : fences_) input.fence_retry_not_before[name] = fence.not_before;
    return input;
}

// Counted from the attempt, as far as this term saw it. A coordinator that finds a guest running when its
// term begins saw no attempt: it was made by the former one, whose node may be the very one that is lost now,
// and the guest waits for nothing.
void Coordinator::back_off() {
    const bool new_term = std::exchange(counted_term_, context_.term) != context_.term;
    if (new_term) {
        seen_restarts_.clear();
        retry_not_before_.clear();
    }
    for (const auto& [name, row] : context_.gated.guests) {
        const auto& placement = row.record.placement;
        const bool began_running = new_term && placement && placement->phase == GuestPhase::running;
        auto& seen = seen_restarts_[name];
        if (row.record.restarts > seen && !began_running) {
            const auto doubled = std::min<std::uint32_t>(row.record.restarts - 1, 6);
            retry_not_before_[name] = context_.now + kRestartBackoff * (std::int64_t{1} << doubled);
        }
        if (row.record.restarts == 0) retry_not_before_.erase(name);
        seen = row.record.restarts;
    }
}

void Coordinator::evaluate() {
    if (!context_.is_coordinator()) {
        asks_.clear();
        waiting_.clear();  // a later coordinator begins the wait anew: never shorter
        committing_ = 0;
        return;
    }
    if (!context_.store_quorate() || !context_.tables_live || !context_.gated.refused.empty()) return;
    run_power_ons();
    if (committing_ != 0 || context_.gated.revision < plan_after_) return;
    std::erase_if(asks_, [&](const auto& one) { return peers_.alive(one.first); });
    confirm_downs();
    withdraw_requests();
    settle();
    if (committing_ != 0) return;
    context_.blocked.clear();
    for (const auto& step : context_.planner(plan_input())) execute(step);
}

void Coordinator::commit(Txn txn, Context::Committed callback) {
    ++committing_;
    context_.commit(std::move(txn), true, false,
                    [this, callback = std::move(callback)](const JobResult& result) {
                        if (committing_ > 0) --committing_;
                        if (result.committed) plan_after_ = std::max(plan_after_, result.revision);
                        if (callback) callback(result);
                    });
}

void Coordinator::execute(const PlanStep& step) {
    if (const auto* grant = std::get_if<GrantGuest>(&step)) {
        grant_guest(*grant);
    } else if (const auto* guest = std::get_if<ReleaseGuest>(&step)) {
        release_guest(*guest);
    } else if (const auto* volume = std::get_if<ReleaseVolume>(&step)) {
        release_volume(*volume);
    } else if (const auto* request = std::get_if<RequestFence>(&step)) {
        request_fence(*request);
    } else if (const auto* ask = std::get_if<AskNode>(&step)) {
        ask_node(*ask);
    } else if (const auto* run = std::get_if<RunFence>(&step)) {
        run_fence(*run);
    } else if (const auto* power = std::get_if<PowerOnVictim>(&step)) {
        power_on(*power);
    } else if (const auto* blocked = std::get_if<Blocked>(&step)) {
        context_.blocked[blocked->object] = {blocked->why, blocked->until_operator};
    }
}

// Attempts are bounded (C10), and forgotten once the guest has shown that it runs.
void Coordinator::settle() {
    for (const auto& [name, row] : context_.gated.guests) {
        const GuestRecord& guest = row.record;
        if (!guest.placement || guest.placement->phase != GuestPhase::running) {
            running_.erase(name);
            continue;
        }
        auto& running = running_[name];
        if (running.epochs != guest.placement->epochs) running = {guest.placement->epochs, context_.now};
        const auto ran = context_.now - running.since;
        GuestRecord next = guest;
        if (ran >= kHostForgiven) {
            next.restarts -= std::min(next.restarts, next.host_losses);
            next.host_losses = 0;
        }
        if (ran >= kGuestForgiven) next.restarts = 0;
        if (next == guest) continue;
        Txn txn;
        context_.reads(txn, keys::guest(name), row);
        txn.puts.push_back({keys::guest(name), encode(next), 0});
        return commit(std::move(txn), nullptr);
    }
}

void Coordinator::grant_guest(const GrantGuest& step) {
    const auto guest = context_.gated.guests.find(step.guest);
    const auto node = context_.gated.nodes.find(step.node);
    if (guest == context_.gated.guests.end() || node == context_.gated.nodes.end()) return;
    Txn txn;
    context_.reads(txn, keys::guest(step.guest), guest->second);
    for (const auto& [name, row] : context_.gated.nodes) context_.reads(txn, keys::node(name), row);
    GuestRecord next = guest->second.record;
    PlacementRecord placement{step.node, node->second.record.incarnation, {}, GuestPhase::starting};
    for (const auto& disk : next.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end()) return;
        context_.reads(txn, keys::volume(disk.volume), volume->second);
        const auto [high, low] = context_.random();
        const VolumeRecord record = granted(context_.gated, volume->second.record,
                                            {step.node, placement.incarnation, context_.secret(),
                                             "vm:" + step.guest, GenerationId::from_random(high, low)});
        placement.epochs[disk.volume] = record.epoch;
        txn.puts.push_back({keys::volume(disk.volume), encode(record), 0});
    }
    next.placement = placement;
    next.migration.reset();
    next.last_error.clear();
    next.pinned_node.clear();  // for that start only
    if (step.after_host_loss) {
        ++next.restarts;
        ++next.host_losses;
    }
    txn.puts.push_back({keys::guest(step.guest), encode(next), 0});
    commit(std::move(txn), [this, step](const JobResult& result) {
        if (result.committed) {
            context_.event(
                "info", "vm.placed", "vm/" + step.guest,
                "starts on " + step.node + (step.after_host_loss ? " after the loss of its node" : ""));
        }
    });
}

void Coordinator::release_guest(const ReleaseGuest& step) {
    const auto guest = context_.gated.guests.find(step.guest);
    if (guest == context_.gated.guests.end() || !guest->second.record.placement) return;
    Txn txn;
    context_.reads(txn, keys::guest(step.guest), guest->second);
    reads_victim(txn, guest->second.record.placement->node);
    GuestRecord next = guest->second.record;
    // Leases of its volumes stay with the lost life: only a grant may follow, and it must know whose they
    // were.
    next.placement.reset();
    next.migration.reset();
    next.last_error = step.reason;
    txn.puts.push_back({keys::guest(step.guest), encode(next), 0});
    commit(std::move(txn), [this, step](const JobResult& result) {
        if (result.committed) context_.event("warning", "vm.lost", "vm/" + step.guest, step.reason);
    });
}

void Coordinator::release_volume(const ReleaseVolume& step) {
    const auto volume = context_.gated.volumes.find(step.volume);
    if (volume == context_.gated.volumes.end() || !volume->second.record.owner) return;
    Txn txn;
    context_.reads(txn, keys::volume(step.volume), volume->second);
    const auto& owner = *volume->second.record.owner;
    reads_victim(txn, owner.node);
    VolumeRecord next = released(volume->second.record);
    // The lost writer may differ from the others in what it had not made stable everywhere.
    for (const auto& replica : next.replicas) {
        if (replica.node == owner.node || !promotable(next, replica.node)) continue;
        const auto [high, low] = context_.random();
        shrink_to(next, replica.node, GenerationId::from_random(high, low));
        break;
    }
    txn.puts.push_back({keys::volume(step.volume), encode(next), 0});
    commit(std::move(txn), [this, step](const JobResult& result) {
        if (result.committed) context_.event("info", "volume.released", "volume/" + step.volume, step.reason);
    });
}

void Coordinator::reads_victim(Txn& txn, const std::string& node) {
    const auto row = context_.gated.nodes.find(node);
    if (row != context_.gated.nodes.end()) context_.reads(txn, keys::node(node), row->second);
}

void Coordinator::request_fence(const RequestFence& step) {
    const auto row = context_.gated.nodes.find(step.node);
    if (row == context_.gated.nodes.end() || row->second.record.incarnation != step.incarnation) return;
    Txn txn;
    context_.reads(txn, keys::node(step.node), row->second);
    for (const auto& [name, volume] : context_.gated.volumes) {
        const bool touches = replica_on(volume.record, step.node) != nullptr ||
                             (volume.record.owner && volume.record.owner->node == step.node);
        if (touches) context_.reads(txn, keys::volume(name), volume);
    }
    NodeRecord next = row->second.record;
    next.fence = {
        FenceState::requested, step.incarnation, context_.config.name, "", next.fence.attempt + 1, false};
    txn.puts.push_back({keys::node(step.node), encode(next), 0});
    // Proof of a node's loss will delete its election key; the request alone does not.
    commit(std::move(txn), [this, step](const JobResult& result) {
        if (result.committed)
            context_.event("warning", "node.fencing", "node/" + step.node, "is going to be fenced");
    });
}

void Coordinator::ask_node(const AskNode& step) {
    auto& ask = asks_[step.node];
    if (ask.incarnation != step.incarnation) {
        const auto [high, low] = context_.random();
        ask = {OperationId::from_random(high, low), step.incarnation, context_.now, context_.now, false};
    }
    if (ask.refused) return;
    if (context_.now - ask.began > milliseconds(context_.timing().ask_ms)) {
        ask.refused = true;
        context_.event("warning", "node.ask-timeout", "node/" + step.node,
                       "did not answer when asked to release");
        return;
    }
    if (context_.now < ask.repeat_at) return;
    ask.repeat_at = context_.now + milliseconds(context_.timing().heartbeat_ms);
    peers_.send(step.node, AskRelease{ask.operation, step.incarnation, context_.gated.lineage_id(),
                                      context_.gated.revision});
}

void Coordinator::answered(const std::string& from, const ReleaseAnswer& answer) {
    const auto ask = asks_.find(from);
    if (ask == asks_.end() || answer.operation != ask->second.operation ||
        answer.victim != ask->second.incarnation) {
        return;
    }
    if (!answer.granted) {
        ask->second.refused = true;
        context_.event("warning", "node.refused", "node/" + from, "refused to release: " + answer.reason);
        return;
    }
    const auto row = context_.gated.nodes.find(from);
    if (!context_.is_coordinator() || row == context_.gated.nodes.end() ||
        row->second.record.incarnation != answer.victim) {
        return;
    }
    Txn txn;
    context_.reads(txn, keys::node(from), row->second);
    NodeRecord next = row->second.record;
    next.fence = {FenceState::verified, answer.victim,          context_.config.name,
                  "released",           next.fence.attempt + 1, true};
    txn.puts.push_back({keys::node(from), encode(next), 0});
    commit(std::move(txn), nullptr);
}

void Coordinator::run_fence(const RunFence& step) {
    auto& fence = fences_[step.node];
    if (fence.running || context_.now < fence.not_before) return;
    // One fencing at a time; and the term once more, now that something happens outside (H11).
    for (const auto& [name, other] : fences_) {
        if (other.running) return;
    }
    if (context_.now < context_.aimed_at_until) {
        context_.blocked["node/" + step.node] = {
            "a fencing of this node that was under way may still switch it off; " + step.node +
                " is fenced after that",
            false};
        return;
    }
    if (!election_.still_coordinator()) return;
    const auto device = context_.gated.fence_devices.find(step.device);
    if (device == context_.gated.fence_devices.end()) return;
    fence = {step.incarnation, true, {}};
    context_.fence(FenceAction::off, device->second.record,
                   [this, step, began = context_.now](const FenceDone& done) {
                       fenced(step.node, step.incarnation, step.device, began, done);
                   });
}

void Coordinator::fenced(const std::string& node, const Incarnation& life, const std::string& device,
                         Instant began, const FenceDone& done) {
    fences_[node].running = false;
    fences_[node].not_before = context_.now + kFenceRetry;
    const bool good = done.outcome == FenceOutcome::verified_off || mutant("fence_unverified_accepted");
    if (!good) {
        context_.event("error", "node.fence-failed", "node/" + node,
                       done.detail + "; the loss is not proven");
        return;
    }
    const bool in_time = context_.now - began <= milliseconds(context_.timing().fence_bound_ms);
    const auto row = context_.gated.nodes.find(node);
    if (!context_.is_coordinator() || !in_time || row == context_.gated.nodes.end()) return;
    const NodeRecord& record = row->second.record;
    const bool same = (record.incarnation == life && record.fence.state == FenceState::requested &&
                       record.fence.incarnation == life) ||
                      mutant("fence_any_incarnation");
    const auto* peer = peers_.find(node);
    // It was silent when the attempt began, its blockd too: a session of that life that changed since came
    // up.
    const auto session = context_.sessions.find(node);
    const bool session_since = session != context_.sessions.end() && session->second.incarnation == life &&
                               session->second.changed > began;
    const bool heard_since =
        session_since || (peer != nullptr && peer->heard_ever && peer->last_heard > began);
    if (!same || (heard_since && !mutant("proof_not_voided") && !mutant("fence_any_incarnation"))) {
        context_.event("warning", "node.fence-void", "node/" + node,
                       "it answered meanwhile: the fence proves nothing");
        return;
    }
    Txn txn;
    context_.reads(txn, keys::node(node), row->second);
    NodeRecord next = record;
    next.fence.state = FenceState::verified;
    next.fence.device = device;
    txn.puts.push_back({keys::node(node), encode(next), 0});
    commit(std::move(txn), [this, node](const JobResult& result) {
        if (result.committed) context_.event("warning", "node.fenced", "node/" + node, "verified off");
    });
}

void Coordinator::power_on(const PowerOnVictim& step) {
    const auto row = context_.gated.nodes.find(step.node);
    const auto device = context_.gated.fence_devices.find(step.device);
    if (row == context_.gated.nodes.end() || device == context_.gated.fence_devices.end()) return;
    Txn txn;
    context_.reads(txn, keys::node(step.node), row->second);
    NodeRecord next = row->second.record;
    next.fence.power_on_done = true;
    txn.puts.push_back({keys::node(step.node), encode(next), 0});
    commit(std::move(txn), [this, next, device = device->second.record](const JobResult& result) {
        if (result.committed) power_ons_[next.name] = {device, next.incarnation, next.fence.attempt};
    });
}

// Committed, and not asked of the device before the term is known to be one's own: this one, or a later one
// of the same process, for nobody else would do it. Dropped when the victim has booted or was fenced anew.
void Coordinator::run_power_ons() {
    if (power_ons_.empty() || !election_.still_coordinator()) return;
    for (const auto& [node, order] : std::exchange(power_ons_, {})) {
        const NodeRecord* now = context_.node(node);
        const bool same = now != nullptr && now->incarnation == order.incarnation &&
                          now->fence.attempt == order.attempt && now->fence.state == FenceState::verified;
        if (!same) continue;
        const auto& device = order.device;
        context_.event("info", "node.power-on", "node/" + node, "is powered on again, once");
        context_.fence(FenceAction::on, device, [this, victim = node](const FenceDone& done) {
            if (done.outcome == FenceOutcome::failed || done.outcome == FenceOutcome::timed_out) {
                context_.event("error", "node.power-on-failed", "node/" + victim, done.detail);
            }
        });
    }
}

// A life that was to be fenced answers again: at its next silence it is requested anew, so that whoever
// coordinates then has looked at the volumes as they are then (H11).
void Coordinator::withdraw_requests() {
    for (const auto& [name, row] : context_.gated.nodes) {
        const auto& fence = row.record.fence;
        const auto* peer = peers_.find(name);
        const bool stands = fence.state == FenceState::requested && fence.device != "operator";
        const bool here = name == context_.config.name && fence.incarnation == context_.config.incarnation;
        const bool there =
            peer != nullptr && peer->incarnation == fence.incarnation && peers_.clusterd_alive(name);
        if (!stands || !(here || there) || fences_[name].running || committing_ != 0) continue;
        if (here) context_.aimed_at();  // who ordered it leads no longer; his board may not know
        NodeRecord next = row.record;
        next.fence.state = FenceState::none;
        Txn txn;
        context_.reads(txn, keys::node(name), row);
        txn.puts.push_back({keys::node(name), encode(next), 0});
        commit(std::move(txn), [this, victim = name](const JobResult& result) {
            if (result.committed)
                context_.event("info", "node.fence-withdrawn", "node/" + victim,
                               "answers again: it is not fenced any more");
        });
    }
}

void Coordinator::confirm_down(const std::string& node) {
    const auto row = context_.gated.nodes.find(node);
    if (row == context_.gated.nodes.end()) return;
    waiting_[node] = {row->second.record.incarnation, false, {}, Instant::never()};
    context_.event("warning", "node.confirm-down", "node/" + node,
                   "the operator says it is off; waiting out the bound");
}

// true: everything of that node is committed as revoking
bool Coordinator::revoke(const std::string& node) {
    Txn txn;
    for (const auto& [name, row] : context_.gated.volumes) {
        const auto& owner = row.record.owner;
        if (!owner || owner->node != node || owner->revoking) continue;
        context_.reads(txn, keys::volume(name), row);
        VolumeRecord next = row.record;
        next.owner->revoking = true;
        txn.puts.push_back({keys::volume(name), encode(next), 0});
    }
    if (txn.puts.empty()) return true;
    commit(std::move(txn), nullptr);
    return false;
}

void Coordinator::confirm_downs() {
    // A confirm-down that forced the store is committed as a request by "operator": its wait begins here.
    for (const auto& [name, row] : context_.gated.nodes) {
        const auto& fence = row.record.fence;
        if (fence.state != FenceState::requested || fence.device != "operator" || waiting_.contains(name))
            continue;
        const bool here = name == context_.config.name;
        if ((here || peers_.answers(name)) && !mutant("proof_not_voided")) {
            NodeRecord next = row.record;
            next.fence = {};
            Txn txn;
            context_.reads(txn, keys::node(name), row);
            txn.puts.push_back({keys::node(name), encode(next), 0});
            return commit(std::move(txn), nullptr);
        }
        waiting_[name] = {row.record.incarnation, false, {}, Instant::never()};
    }
    for (auto at = waiting_.begin(); at != waiting_.end();) {
        auto& [node, wait] = *at;
        // Over when the tables show it, not when it was sent: whoever asks in between must not take it for
        // void.
        if (node_gone(context_.gated, node)) {
            at = waiting_.erase(at);
            continue;
        }
        const auto row = context_.gated.nodes.find(node);
        const bool void_now = peers_.answers(node) || row == context_.gated.nodes.end() ||
                              row->second.record.incarnation != wait.incarnation;
        if (void_now && !mutant("proof_not_voided")) {
            context_.event("warning", "proof.void", "node/" + node,
                           "it answers: the operator's word is void");
            at = waiting_.erase(at);
            continue;
        }
        if (!revoke(node)) return;
        Instant from = wait.revoked ? wait.revoked_at : context_.now;
        bool refused_all = true;
        for (const auto& [name, volume] : context_.gated.volumes) {
            const auto& owner = volume.record.owner;
            if (!owner || owner->node != node || replica_on(volume.record, context_.config.name) == nullptr)
                continue;
            const auto refused = context_.epochs_refused.find({volume.record.id, owner->epoch});
            refused_all = refused_all && refused != context_.epochs_refused.end();
            if (refused != context_.epochs_refused.end()) from = std::max(from, refused->second);
        }
        if (!wait.revoked) {
            wait.revoked = true;
            wait.revoked_at = context_.now;
        }
        wait.until = refused_all ? from + milliseconds(context_.timing().regrant_ms()) : Instant::never();
        const bool over = refused_all && context_.now >= wait.until;
        if (over || mutant("regrant_before_refusal")) {
            Txn txn;
            context_.reads(txn, keys::node(node), row->second);
            NodeRecord next = row->second.record;
            next.fence = {FenceState::confirmed_down, wait.incarnation,
                          context_.config.name,       "operator",
                          next.fence.attempt + 1,     true};
            txn.puts.push_back({keys::node(node), encode(next), 0});
            commit(std::move(txn), [this, name = node](const JobResult& result) {
                if (!result.committed) return;
                context_.event("warning", "node.confirmed-down", "node/" + name,
                               "taken for lost by the operator's word");
            });
            return;
        }
        ++at;
    }
}

}  // namespace gemel::cluster
