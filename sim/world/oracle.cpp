#include "sim/world/oracle.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "sim/checkers/single_guest.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

using replication::ProposalKind;
using replication::ProposalOutcome;

constexpr Duration kTick = milliseconds(200);
constexpr Duration kSuspicion = milliseconds(1000);
constexpr Duration kLease = seconds(10);
constexpr Duration kWatchdog = seconds(15);
constexpr Duration kRegrantBound = milliseconds(10100 + 15000 + 5000);
constexpr Duration kLoserWaits = milliseconds(4000);  // longer than a fence takes

}  // namespace

Oracle::Oracle(Parts parts, Prng random, Voters voters, VolumeRecord first)
    : parts_(parts), random_(random), voters_(voters) {
    committed_.record = std::move(first);
    committed_.revision = 1;
    committed_.lineage = LineageId::from_random(random_.next(), random_.next());
}

std::uint32_t Oracle::owner_node() const {
    return committed_.record.owner->node == "node1" ? 0 : 1;
}

bool Oracle::owns(std::uint32_t node, std::uint64_t epoch) const {
    const auto& owner = committed_.record.owner;
    return owner && owner_node() == node && owner->epoch == epoch &&
           owner->incarnation == parts_.world.host(node).incarnation;
}

Duration Oracle::latency() {
    return microseconds(random_.between(300, 2500));
}

void Oracle::start() {
    parts_.tasks.after(kTick, [this] { tick(); });
    for (std::uint32_t node = 0; node < 2; ++node) renew(node);
}

bool Oracle::speaks(std::uint32_t node) const {
    return parts_.world.host(node).up() && parts_.world.clusterd_alive(node);
}

// Both ways on the control cable or on a replication link: heartbeats run on every path.
bool Oracle::reaches(std::uint32_t from, std::uint32_t to) const {
    const Network& network = parts_.network;
    const bool control = network.passes(Cable::control, from, to) && network.passes(Cable::control, to, from);
    const bool links = network.links_pass(from, to) && network.links_pass(to, from);
    return control || links;
}

bool Oracle::witness_reached(std::uint32_t node) const {
    return parts_.world.witness_up() && parts_.network.passes(Cable::control, node, kWitness) &&
           parts_.network.passes(Cable::control, kWitness, node);
}

// The store answers clients on that node. The store's members speak over the control cable only.
bool Oracle::quorum(std::uint32_t node) const {
    if (!parts_.world.host(node).up()) return false;
    const std::uint32_t other = 1 - node;
    const bool peer = parts_.world.host(other).up() && parts_.network.passes(Cable::control, node, other) &&
                      parts_.network.passes(Cable::control, other, node);
    if (voters_ == Voters::three) {
        return peer || witness_reached(node);
    }
    if (sole_voter_) return *sole_voter_ == node || (peer && *sole_voter_ == other);
    return peer;
}

void Oracle::commit(const char* what) {
    ++committed_.revision;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const bool was_in = (committed_mask_ >> node & 1U) != 0;
        if (was_in && !in_ack_set(node)) parts_.world.left_ack_set(node);
    }
    committed_mask_ = ack_mask();
    parts_.counters.add(fmt::format("commit.{}", what));
    parts_.trace.note_text(
        parts_.tasks.now(), kWorld, "store.commit",
        fmt::format("{} revision {} generation {} ack {}{} owner {} epoch {}{}", what, committed_.revision,
                    committed_.record.generation.counter, in_ack_set(0) ? "1" : "-",
                    in_ack_set(1) ? "2" : "-",
                    committed_.record.owner ? committed_.record.owner->node : "none", committed_.record.epoch,
                    committed_.record.owner && committed_.record.owner->revoking ? " revoking" : ""));
    for (std::uint32_t node = 0; node < 2; ++node) {
        const Duration lag =
            slow_watches_ && random_.chance(1, 2) ? milliseconds(random_.between(100, 4000)) : latency();
        parts_.tasks.after(lag, [this, node, snapshot = committed_] {
            if (quorum(node) && speaks(node)) tell(node, snapshot);
        });
    }
}

void Oracle::tell(std::uint32_t node, const CommittedVolume& snapshot) {
    NodeState& state = nodes_[node];
    if (!state.known || state.known->revision <= snapshot.revision) state.known = snapshot;
    parts_.world.block(node).input(replication::CommittedRecordIn{snapshot});
    const std::uint64_t epoch = parts_.guest.epoch();
    const auto& owner = state.known->record.owner;
    const bool owned_here = owner && owner->node == (node == 0 ? "node1" : "node2") && owner->epoch == epoch;
    if (parts_.guest.alive() && parts_.guest.node() == node && !owned_here &&
        state.known->record.epoch >= epoch) {
        guard_kill(node, epoch);
    }
}

// Linearizable reads, all the time: the lease's second way, and how a lagging node catches up.
void Oracle::renew(std::uint32_t node) {
    parts_.tasks.after(milliseconds(random_.between(600, 2500)), [this, node] { renew(node); });
    if (!speaks(node)) return;
    const Instant sent = parts_.world.host(node).clock.local(parts_.tasks.now());
    const Incarnation life = parts_.world.host(node).incarnation;
    parts_.tasks.after(latency(), [this, node, sent, life] {
        if (!quorum(node)) return;
        parts_.tasks.after(latency(), [this, node, sent, life, snapshot = committed_] {
            if (!speaks(node) || parts_.world.host(node).incarnation != life) return;
            NodeState& state = nodes_[node];
            if (!state.known || state.known->revision < snapshot.revision) tell(node, snapshot);
            parts_.world.block(node).input(replication::StoreRenewal{sent, snapshot});
        });
    });
}

void Oracle::need_record(std::uint32_t node, std::uint64_t) {
    parts_.counters.add("engine.need_record");
    parts_.tasks.after(latency(), [this, node] {
        if (quorum(node) && speaks(node)) tell(node, committed_);
    });
}

void Oracle::set_trouble(bool lost_replies, bool slow_watches) {
    lost_replies_ = lost_replies;
    slow_watches_ = slow_watches;
}

// ---- what engines propose
// ------------------------------------------------------------------------------------------

void Oracle::propose(std::uint32_t node, const replication::Propose& propose) {
    parts_.counters.add(propose.kind == ProposalKind::peer_left     ? "propose.peer_left"
                        : propose.kind == ProposalKind::peer_joined ? "propose.peer_joined"
                                                                    : "propose.local_failed");
    Duration wait = latency();
    if (lost_replies_ && random_.chance(1, 3))
        wait = milliseconds(random_.between(100, 6000));  // H37: delayed
    parts_.tasks.after(wait, [this, node, propose] { finish_proposal(node, propose); });
    if (wait > milliseconds(1000))
        answer(node, propose.proposal, ProposalOutcome::unknown, random_.chance(1, 2));
}

void Oracle::finish_proposal(std::uint32_t node, const replication::Propose& propose) {
    if (!parts_.world.host(node).powered || !quorum(node)) {
        parts_.counters.add("store.no_quorum");
        parts_.tasks.after(milliseconds(random_.between(200, 900)), [this, node, number = propose.proposal] {
            answer(node, number, ProposalOutcome::unknown, false);
        });
        return;
    }
    const auto& owner = committed_.record.owner;
    const bool may = !owner || owner_node() == node;
    const bool same =
        committed_.revision == propose.expected_revision && committed_.lineage == propose.expected_lineage;
    const bool lost = lost_replies_ && random_.chance(1, 3);
    if (!may || !same) {
        parts_.counters.add("store.refused");
        if (!lost) answer(node, propose.proposal, ProposalOutcome::refused, true);
        if (lost) answer(node, propose.proposal, ProposalOutcome::unknown, random_.chance(1, 2));
        return;
    }
    committed_.record = propose.next;
    commit(propose.kind == ProposalKind::peer_left     ? "peer_left"
           : propose.kind == ProposalKind::peer_joined ? "peer_joined"
                                                       : "local_failed");
    if (lost) {
        parts_.counters.add("store.lost_reply");
        answer(node, propose.proposal, ProposalOutcome::unknown, random_.chance(1, 2));
    } else {
        answer(node, propose.proposal, ProposalOutcome::committed, true);
    }
}

void Oracle::answer(std::uint32_t node, std::uint64_t proposal, ProposalOutcome outcome, bool with_current) {
    const Incarnation life = parts_.world.host(node).incarnation;
    parts_.tasks.after(
        latency(), [this, node, proposal, outcome, with_current, life, snapshot = committed_]() {
            if (!parts_.world.host(node).powered || parts_.world.host(node).incarnation != life) return;
            replication::ProposalDone done{proposal, outcome, std::nullopt};
            if (with_current && quorum(node)) done.current = snapshot;
            parts_.world.block(node).input(done);
        });
}

void Oracle::epoch_refused(std::uint32_t node, std::uint64_t epoch) {
    if (!regrant_.active || regrant_.epoch != epoch || regrant_.refused) return;
    regrant_.refused = true;
    regrant_.ready_local = parts_.world.host(node).clock.local(parts_.tasks.now()) + kRegrantBound;
    parts_.counters.add("site.epoch_refused");
}

// ---- grants
// ----------------------------------------------------------------------------------------------------

void Oracle::tick() {
    parts_.tasks.after(kTick, [this] { tick(); });
    update_standing();
    consider_rejoin();
    consider_sole_voter();
    consider_lost_peer();
    consider_owner();
    consider_grant();
}

void Oracle::update_standing() {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::uint32_t other = 1 - node;
        const bool meets = parts_.world.host(node).up() && parts_.world.host(other).up() &&
                           parts_.network.passes(Cable::control, node, other) &&
                           parts_.network.passes(Cable::control, other, node);
        if (meets && !sole_voter_) nodes_[node].standing = true;
        const bool gone = !parts_.world.host(other).up() || !reaches(node, other);
        Fencing& fencing = fencing_[other];
        if (!gone) {
            fencing.lost_since = Instant::never();
        } else if (fencing.lost_since == Instant::never()) {
            fencing.lost_since = parts_.tasks.now();
        }
    }
}

bool Oracle::proven_down(std::uint32_t node) const {
    const Host& host = parts_.world.host(node);
    const Fencing& fencing = fencing_[node];
    return fencing.step == FenceStep::verified && (fencing.victim == host.incarnation) && !host.powered;
}

void Oracle::begin_fence(std::uint32_t by, std::uint32_t victim) {
    Fencing& fencing = fencing_[victim];
    if (fencing.step == FenceStep::running) return;
    fencing.step = FenceStep::running;
    fencing.victim = parts_.world.host(victim).incarnation;
    const std::uint64_t attempt = ++fencing.attempt;
    FenceMood mood = parts_.world.fence_mood(victim);
    if (!parts_.network.passes(Cable::management, by, victim)) mood = FenceMood::hangs;
    parts_.counters.add("fence.begun");
    parts_.trace.note(parts_.tasks.now(), by, "fence.begun", victim + 1, static_cast<std::uint64_t>(mood));
    Duration takes = milliseconds(random_.between(200, 1800));
    if (mood == FenceMood::slow) takes = milliseconds(random_.between(4000, 9000));
    if (mood == FenceMood::hangs) takes = seconds(20);
    parts_.tasks.after(takes, [this, by, victim, attempt, mood, life = fencing.victim] {
        const bool works = mood == FenceMood::works || mood == FenceMood::slow;
        Host& host = parts_.world.host(victim);
        const bool same_life = host.incarnation == life;
        if (works && same_life && parts_.world.host(by).powered) parts_.world.power_off(victim);
        fence_answered(by, victim, attempt, works && same_life);
    });
}

void Oracle::fence_answered(std::uint32_t by, std::uint32_t victim, std::uint64_t attempt, bool off) {
    Fencing& fencing = fencing_[victim];
    if (fencing.attempt != attempt) return;
    if (!parts_.world.host(by).powered) {
        fencing.step = FenceStep::idle;
        return;
    }
    fencing.step = off ? FenceStep::verified : FenceStep::failed;
    parts_.counters.add(off ? "fence.verified" : "fence.failed");
    parts_.trace.note(parts_.tasks.now(), by, off ? TraceName("fence.verified") : TraceName("fence.failed"),
                      victim + 1);
    if (!off) {
        parts_.tasks.after(seconds(3), [this, victim, attempt] {
            if (fencing_[victim].attempt == attempt) fencing_[victim].step = FenceStep::idle;
        });
        return;
    }
    parts_.world.block(by).input(replication::PeerProvenDown{fencing.victim});
    parts_.tasks.after(milliseconds(random_.between(2000, 9000)), [this, victim, life = fencing.victim] {
        const Host& host = parts_.world.host(victim);
        if (!host.powered && host.incarnation == life) parts_.world.power_on(victim);
    });
}

// Two voters: the survivor becomes the only one, with standing and proof (design brief 3.4).
void Oracle::consider_sole_voter() {
    if (voters_ != Voters::two || sole_voter_) return;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::uint32_t other = 1 - node;
        if (!speaks(node) || !nodes_[node].standing || quorum(node)) continue;
        if (proven_down(other)) {
            sole_voter_ = node;
            committed_.lineage = LineageId::from_random(random_.next(), random_.next());
            commit("forced_single_member");
            rejoined_since_ = Instant::never();
            return;
        }
        const Instant since = fencing_[other].lost_since;
        const bool owner_here = committed_.record.owner && owner_node() == node;
        const Duration wait = owner_here ? kSuspicion : kSuspicion + kLoserWaits;
        if (since == Instant::never() || parts_.tasks.now() - since < wait) continue;
        if (reaches(node, other) && parts_.world.host(other).up()) continue;
        begin_fence(node, other);
    }
}

void Oracle::consider_rejoin() {
    if (!sole_voter_) return;
    const std::uint32_t other = 1 - *sole_voter_;
    if (!quorum(*sole_voter_) || !quorum(other) || !speaks(other)) {
        rejoined_since_ = Instant::never();
        return;
    }
    if (rejoined_since_ == Instant::never()) rejoined_since_ = parts_.tasks.now();
    if (parts_.tasks.now() - rejoined_since_ < seconds(2)) return;
    sole_voter_.reset();
    parts_.counters.add("site.voter_rejoined");
}

// The owner lost its peer for good and cannot ask anybody: with three voters the engine's own proposal
// commits.
void Oracle::consider_lost_peer() {
    if (!committed_.record.owner) return;
    const std::uint32_t owner = owner_node();
    const std::uint32_t peer = 1 - owner;
    if (proven_down(peer) && speaks(owner) && random_.chance(1, 8)) {
        parts_.world.block(owner).input(replication::PeerProvenDown{fencing_[peer].victim});
    }
}

void Oracle::consider_owner() {
    if (!committed_.record.owner) return;
    const std::uint32_t owner = owner_node();
    Host& host = parts_.world.host(owner);
    const std::uint32_t survivor = 1 - owner;
    const bool somebody = quorum(0) || quorum(1);
    if (host.powered && host.incarnation != committed_.record.owner->incarnation) {
        // the boot that held the lease is over, whoever says so
        const bool told = speaks(survivor) && quorum(survivor) && reaches(survivor, owner);
        if (told || (quorum(owner) && speaks(owner))) release("owner_rebooted");
        return;
    }
    if (handover_wanted_ && speaks(owner) && somebody && quorum(owner)) {
        handover_wanted_ = false;
        if (parts_.guest.alive() && parts_.guest.node() == owner) parts_.guest.kill();
        prefer_ = survivor;
        release("handover");
        return;
    }
    if (restart_wanted_ && speaks(owner) && quorum(owner)) {
        restart_wanted_ = false;
        if (!parts_.guest.alive()) {
            release("guest_ended");
            return;
        }
    }
    if (consider_unserved(owner)) return;
    if (committed_.record.owner->revoking && speaks(owner) && quorum(owner)) {
        if (parts_.guest.alive() && parts_.guest.node() == owner) parts_.guest.kill();
        release("asked_to_release");
        return;
    }
    const bool lost = !host.up() || !reaches(survivor, owner);
    const bool owner_heard = host.up() && quorum(owner) && voters_ == Voters::three;
    if (lost && !owner_heard) consider_lost_owner(owner);
}

// The owner's node is well and still nobody is served: its replica is gone, or its guest was killed by its
// guard.
bool Oracle::consider_unserved(std::uint32_t owner) {
    const bool well = speaks(owner) && quorum(owner) && parts_.world.block(owner).running();
    if (!well || (parts_.guest.alive() && parts_.world.block(owner).served_epoch() != 0)) {
        unserved_since_ = Instant::never();
        return false;
    }
    if (unserved_since_ == Instant::never()) unserved_since_ = parts_.tasks.now();
    const bool useless = parts_.world.block(owner).served_epoch() == 0;
    const bool gone = parts_.world.block(owner).served_epoch() != 0 && !parts_.guest.alive();
    if (parts_.tasks.now() - unserved_since_ < seconds(5) || !(useless || gone)) return false;
    unserved_since_ = Instant::never();
    if (parts_.guest.alive() && parts_.guest.node() == owner) parts_.guest.kill();
    if (useless) prefer_ = 1 - owner;
    release(useless ? "owner_without_replica" : "guest_gone");
    return true;
}

void Oracle::consider_lost_owner(std::uint32_t owner) {
    const std::uint32_t survivor = 1 - owner;
    if (!speaks(survivor) || !quorum(survivor)) return;
    bool leave = false;
    if (proven_down(owner)) {
        if (may_promote(survivor, &leave)) grant(survivor, in_ack_set(owner));
        return;
    }
    const Instant since = fencing_[owner].lost_since;
    if (since == Instant::never() || parts_.tasks.now() - since < kSuspicion) return;
    if (!in_ack_set(survivor)) return;  // nothing to be won: a fence needs a promotable replica elsewhere
    if (fencing_[owner].step == FenceStep::idle) begin_fence(survivor, owner);
    if (voters_ == Voters::three && fencing_[owner].step == FenceStep::failed)
        consider_regrant(owner, survivor);
    if (regrant_.active) consider_regrant(owner, survivor);
}

void Oracle::consider_regrant(std::uint32_t owner, std::uint32_t survivor) {
    OwnerRecord& record = *committed_.record.owner;
    if (!record.revoking) {
        record.revoking = true;
        commit("revoking");
        regrant_ = Regrant{true, record.epoch, false, Instant::never()};
        return;
    }
    if (!regrant_.active || regrant_.epoch != record.epoch)
        regrant_ = Regrant{true, record.epoch, false, Instant::never()};
    if (!regrant_.refused) {
        parts_.world.block(survivor).input(replication::RefuseEpoch{record.epoch});
        return;
    }
    if (parts_.world.host(survivor).clock.local(parts_.tasks.now()) < regrant_.ready_local) return;
    parts_.counters.add("site.regrant_by_time");
    regrant_ = Regrant{};
    grant(survivor, in_ack_set(owner));
}

bool Oracle::may_promote(std::uint32_t node, bool* needs_leave) {
    const std::uint32_t other = 1 - node;
    if (!in_ack_set(node) || replica(node).state != ReplicaState::up_to_date) return false;
    if (!speaks(node) || !quorum(node) || !parts_.world.block(node).running()) return false;
    *needs_leave = false;
    if (!in_ack_set(other)) return true;
    if (proven_down(other)) {
        *needs_leave = true;
        return true;
    }
    // the other one is alive: the engines' handshake decides whether it can serve
    return parts_.world.host(other).up() && parts_.world.block(other).running();
}

void Oracle::consider_grant() {
    if (committed_.record.owner) return;
    std::uint32_t first = prefer_ ? *prefer_ : static_cast<std::uint32_t>(random_.below(2));
    for (const std::uint32_t node : {first, 1 - first}) {
        bool leave = false;
        if (!may_promote(node, &leave)) continue;
        if (parts_.guest.alive()) return;
        prefer_.reset();
        grant(node, leave);
        return;
    }
    // nobody can: what is in the ack set and silent must be proven down first
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::uint32_t other = 1 - node;
        const bool wants = speaks(node) && quorum(node) && in_ack_set(node) && in_ack_set(other);
        const Instant since = fencing_[other].lost_since;
        if (!wants || since == Instant::never() || parts_.tasks.now() - since < kSuspicion) continue;
        if (fencing_[other].step != FenceStep::running && !proven_down(other)) begin_fence(node, other);
    }
}

void Oracle::new_generation() {
    VolumeRecord& record = committed_.record;
    record.ancestors.insert(record.ancestors.begin(), record.generation.id);
    if (record.ancestors.size() > VolumeRecord::kMaxAncestors)
        record.ancestors.resize(VolumeRecord::kMaxAncestors);
    record.generation = Generation{GenerationId::from_random(random_.next(), random_.next()),
                                   record.generation.id, record.generation.counter + 1};
}

void Oracle::grant(std::uint32_t node, bool leave_peer) {
    VolumeRecord& record = committed_.record;
    if (!in_ack_set(node)) return;
    if (leave_peer) {
        replica(1 - node).in_ack_set = false;
        if (replica(1 - node).state == ReplicaState::up_to_date)
            replica(1 - node).state = ReplicaState::outdated;
        new_generation();
    }
    OwnerRecord owner;
    owner.node = node == 0 ? "node1" : "node2";
    owner.incarnation = parts_.world.host(node).incarnation;
    owner.epoch = ++record.epoch;
    owner.secret = fmt::format("{:032x}", random_.next());
    owner.purpose = "vm:guest";
    record.owner = owner;
    regrant_ = Regrant{};
    commit("grant");
}

void Oracle::release(const char* why) {
    committed_.record.owner.reset();
    regrant_ = Regrant{};
    parts_.counters.add(fmt::format("release.{}", why));
    commit("release");
}

void Oracle::ask_handover() {
    handover_wanted_ = true;
}

void Oracle::guest_ended() {
    restart_wanted_ = true;
}

void Oracle::replica_replaced(std::uint32_t node, ReplicaId fresh) {
    ReplicaRecord& record = replica(node);
    record.replica = fresh;
    record.state = ReplicaState::inconsistent;
    record.in_ack_set = false;
    new_generation();
    commit("replica_replaced");
}

// ---- the node's guard and guest
// ------------------------------------------------------------------------------------

void Oracle::serve_front(std::uint32_t node, std::uint64_t epoch) {
    nodes_[node].front_epoch = epoch;
    parts_.trace.note(parts_.tasks.now(), node, "front.open", epoch);
    Guest& guest = parts_.guest;
    if (guest.alive() && guest.node() == node && guest.epoch() == epoch) {
        parts_.tasks.after(microseconds(random_.between(50, 5000)), [this, node, epoch] {
            BlockNode& block = parts_.world.block(node);
            const bool same =
                parts_.guest.alive() && parts_.guest.node() == node && parts_.guest.epoch() == epoch;
            if (same && block.served_epoch() == epoch && !parts_.guest.connected())
                parts_.guest.front_opened(block);
        });
        return;
    }
    parts_.tasks.after(milliseconds(random_.between(1, 60)),
                       [this, node, epoch] { start_guest(node, epoch); });
}

void Oracle::start_guest(std::uint32_t node, std::uint64_t epoch) {
    const auto& known = nodes_[node].known;
    BlockNode& block = parts_.world.block(node);
    if (!speaks(node)) {
        if (parts_.world.host(node).powered && nodes_[node].front_epoch == epoch) {
            parts_.tasks.after(milliseconds(300), [this, node, epoch] { start_guest(node, epoch); });
        }
        return;
    }
    if (block.served_epoch() != epoch || !known || known->record.epoch != epoch) return;
    if (!known->record.owner || known->record.owner->revoking) return;
    if (parts_.guest.alive()) {
        if (parts_.guest.node() == node && parts_.guest.epoch() == epoch) return;
        if (parts_.guest.node() == node)
            parts_.guest.kill();  // its domain is looked up by UUID before a start
        else
            throw Violation("C1", SingleGuestChecker::starts(node, true));
    }
    parts_.counters.add("guest.started");
    parts_.guest.start(node, epoch);
    parts_.guest.front_opened(block);
    guard_check(node);
}

void Oracle::stop_front(std::uint32_t node, std::uint64_t epoch) {
    if (nodes_[node].front_epoch == epoch) nodes_[node].front_epoch = 0;
    parts_.trace.note(parts_.tasks.now(), node, "front.closed", epoch);
    if (parts_.guest.alive() && parts_.guest.node() == node && parts_.guest.epoch() == epoch) {
        parts_.guest.front_lost();
        guard_kill(node, epoch);
    }
}

void Oracle::guard_kill(std::uint32_t node, std::uint64_t epoch) {
    parts_.tasks.after(milliseconds(random_.between(1, 200)), [this, node, epoch] {
        Guest& guest = parts_.guest;
        if (guest.alive() && guest.node() == node && guest.epoch() == epoch) guest.kill();
    });
}

void Oracle::lease_extended(std::uint32_t node, std::uint64_t epoch, Instant local_until) {
    NodeState& state = nodes_[node];
    state.lease_until = local_until;
    state.lease_epoch = epoch;
    if (state.guest_paused_by_lease) {
        state.guest_paused_by_lease = false;
        parts_.counters.add("guard.resumed");
        if (parts_.guest.alive() && parts_.guest.node() == node && parts_.world.host(node).up()) {
            parts_.guest.set_vcpus(true);
        }
    }
    guard_check(node);
}

// Pauses the guest when its right ends, kills it before anybody else could be granted by time alone.
void Oracle::guard_check(std::uint32_t node) {
    Guest& guest = parts_.guest;
    const Host& host = parts_.world.host(node);
    if (!guest.alive() || guest.node() != node || !host.up()) return;
    NodeState& state = nodes_[node];
    const Instant local = host.clock.local(parts_.tasks.now());
    Instant next = state.lease_until;
    if (local >= state.lease_until) {
        if (!state.guest_paused_by_lease) {
            state.guest_paused_by_lease = true;
            parts_.counters.add("guard.paused");
            guest.set_vcpus(false);
        }
        next = state.lease_until + kWatchdog;
        if (local >= next) {
            parts_.counters.add("guard.killed");
            guest.kill();
            state.guest_paused_by_lease = false;
            return;
        }
    }
    const std::uint64_t epoch = guest.epoch();
    parts_.tasks.at(host.clock.real(next), [this, node, epoch, next] {
        const NodeState& now = nodes_[node];
        const bool newest = now.lease_until == next || now.lease_until + kWatchdog == next;
        if (newest && parts_.guest.alive() && parts_.guest.epoch() == epoch) guard_check(node);
    });
}

// ---- what happens to hosts
// -------------------------------------------------------------------------------------------

void Oracle::blockd_started(std::uint32_t node) {
    parts_.world.attach(node);
    nodes_[node].front_epoch = 0;
    if (!nodes_[node].known) return;
    parts_.tasks.after(milliseconds(random_.between(1, 40)), [this, node] {
        if (speaks(node) && nodes_[node].known) {
            parts_.world.block(node).input(replication::CommittedRecordIn{*nodes_[node].known});
        }
    });
}

void Oracle::clusterd_started(std::uint32_t node) {
    nodes_[node].known.reset();
    need_record(node, 0);
}

void Oracle::host_booted(std::uint32_t node) {
    nodes_[node] = NodeState{};
    if (fencing_[node].step != FenceStep::running) fencing_[node].step = FenceStep::idle;
}

void Oracle::host_lost(std::uint32_t node) {
    nodes_[node] = NodeState{};
}

void Oracle::host_resumed(std::uint32_t node) {
    const Duration gap = parts_.tasks.now() - parts_.world.host(node).paused_at;
    if (gap > seconds(1)) nodes_[node].standing = false;
    parts_.tasks.after(milliseconds(random_.between(0, 10)), [this, node] { guard_check(node); });
}

}  // namespace gemel::sim
