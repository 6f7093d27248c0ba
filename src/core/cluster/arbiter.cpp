#include "core/cluster/arbiter.hpp"

#include <algorithm>
#include <utility>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {
namespace {

constexpr Duration kFenceRetry = seconds(5);

const FenceDeviceRecord* device_for(const Tables& tables, const std::string& node) {
    for (const auto& [name, row] : tables.fence_devices) {
        if (row.record.node == node) return &row.record;
    }
    return nullptr;
}

// A member that is being added, or removed, may be none yet, or none any more: the other one commits without
// it, and what it has stored says nothing of that. It neither fences nor forces.
bool own_vote_is_open(const Context& context) {
    const auto open = [&](const auto& row) {
        return row && (row->record.adding_voter == context.config.name ||
                       row->record.removing_voter == context.config.name);
    };
    return open(context.gated.cluster) || open(context.latest.cluster);
}

}  // namespace

void Arbiter::move(State to, const std::string& why) {
    if (state_ == to && why_ == why) return;
    if (state_ != to) since_ = context_.now;
    state_ = to;
    why_ = why;
    context_.log("info", "two voters: " + why);
}

void Arbiter::reset(const std::string& why) {
    if (prepared_ || state_ == State::preparing) {
        context_.store_command(ForceAbort{}, [](const StoreCommandDone&) {});
    }
    prepared_ = false;
    proof_ = {};
    accept_loss_ = refused_ = fenced_once_ = false;
    if (context_.store == StoreCondition::forcing) context_.store = StoreCondition::waiting;
    if (state_ != State::idle) move(State::idle, why);
    why_.clear();
}

std::uint32_t Arbiter::weight_of(const std::string& node) const {
    std::uint32_t weight = 0;
    for (const auto& [name, row] : context_.latest.guests) {
        const auto& placement = row.record.placement;
        if (placement && placement->node == node) weight += 100 + row.record.priority;
    }
    return weight;
}

Incarnation Arbiter::lost_life() const {
    const auto* peer = peers_.find(peer_);
    if (peer != nullptr && peer->heard_ever) return peer->incarnation;
    const auto* record = context_.node(peer_);
    return record != nullptr ? record->incarnation : Incarnation{};
}

// It released to a life of this node that did not come to force, or its disk is lost: it waits to be added by
// this node, whose store cannot decide that without it. One of the two must move.
bool Arbiter::storeless(const std::string& node) const {
    const auto* peer = peers_.find(node);
    return peer != nullptr && peers_.clusterd_alive(node) && peer->heartbeat.wants_to_join;
}

// Own writes wait for a decision that only a writable store can take.
bool Arbiter::need() const {
    for (const auto& [id, facts] : context_.volumes) {
        if (facts.view.role == replication::Role::primary &&
            facts.view.frozen == replication::FreezeReason::peer_lost) {
            return true;
        }
    }
    return false;
}

// Turns alternate from the moment the store was lost, which both notice at about the same time; the one with
// more weighted guests has the first.
bool Arbiter::my_turn() const {
    if (mutant("fence_delay_skipped") || accept_loss_) return true;
    const auto mine = weight_of(context_.config.name);
    const auto theirs = weight_of(peer_);
    const bool first = mine > theirs || (mine == theirs && context_.config.name < peer_);
    std::uint32_t longest_ms = 0;
    for (const auto& node : {context_.config.name, peer_}) {
        const auto* device = device_for(context_.latest, node);
        if (device != nullptr) longest_ms = std::max(longest_ms, device->timeout_ms);
    }
    const Duration turn = milliseconds(longest_ms) + kTurnBegin + kTurnSkew;
    const Duration passed = context_.now - unquorate_since_;
    const std::int64_t number = passed.nanoseconds / turn.nanoseconds;
    const Duration within = passed - turn * number;
    return within <= kTurnBegin && (number % 2 == 0) == first;
}

std::string Arbiter::promotable_refusal() const {
    for (const auto& [name, row] : context_.latest.volumes) {
        const auto& owner = row.record.owner;
        if (!owner || owner->node != peer_) continue;
        if (promotable(row.record, context_.config.name)) return {};
    }
    bool victim_owns = false;
    for (const auto& [name, row] : context_.latest.volumes) {
        victim_owns = victim_owns || (row.record.owner && row.record.owner->node == peer_);
    }
    // Something of its own to unfreeze or nothing at stake there is reason enough; taking over stale data is
    // none.
    if (!victim_owns || need()) return {};
    return "no volume of " + peer_ + " has a current replica here: fencing it would bring nothing back";
}

bool Arbiter::proof_holds() const {
    if (proof_.kind == ProofKind::none) return false;
    if (mutant("proof_unbounded")) return true;
    const Duration bound = milliseconds(context_.timing().fence_bound_ms);
    switch (proof_.kind) {
        case ProofKind::fence:
            // within the bound of the loss; by the operator's order to start alone the loss lies before this
            // life
            if (!accept_loss_ && proof_.obtained_at - proof_.lost_at > bound) return false;
            return context_.now - proof_.obtained_at <= bound;
        case ProofKind::release:
        case ProofKind::operator_word: return context_.now - proof_.obtained_at <= bound;
        case ProofKind::leave: return true;
        case ProofKind::none: return false;
    }
    return false;
}

void Arbiter::heard(const PeerMessage& message) {
    if (message.from != peer_ || mutant("proof_not_voided")) return;
    if (std::holds_alternative<ReleaseAnswer>(message.body)) return;
    // A node that released goes on talking; it has set its store aside, and says so.
    if (const auto* heartbeat = std::get_if<Heartbeat>(&message.body);
        heartbeat != nullptr && heartbeat->wants_to_join && proof_.kind == ProofKind::release) {
        return;
    }
    if (proof_.kind != ProofKind::none && state_ != State::activating) {
        context_.event("warning", "proof.void", "node/" + peer_, "it answers: the proof of its loss is void");
        reset("the peer answers");
    } else if (state_ == State::waiting_turn && message.incarnation != lost_life()) {
        reset("the peer answers with a new life");
    }
}

void Arbiter::answered(const ReleaseAnswer& answer) {
    // Late is not lost: a node that stood still releases when it wakes, and then nothing else proves its end.
    const bool awaited = state_ == State::asking || (state_ == State::waiting_turn && refused_);
    if (!awaited || answer.operation != ask_id_ || answer.victim != lost_life()) return;
    if (!answer.granted) {
        if (std::exchange(refused_, true)) return;
        move(State::waiting_turn, peer_ + " refused to release: " + answer.reason);
        return;
    }
    if (answer.lineage != context_.latest.lineage_id() || answer.revision > context_.latest.revision) {
        return reset(peer_ + " released, but its store is newer than this one");
    }
    proof_ = {ProofKind::release, answer.victim, peers_.lost_since(peer_), context_.now, ""};
    move(State::proven, peer_ + " released durably");
}

Status Arbiter::may_confirm_down(const std::string& node) const {
    if (peers_.find(node) == nullptr) {
        return fail(ErrorCode::not_found,
                    "there is no other node named " + node + "; gemel node list shows them");
    }
    if (peers_.answers(node)) {
        return fail(ErrorCode::failed_precondition,
                    node + " still answers: it is not down. Power it off first");
    }
    const auto twice = milliseconds(2 * std::int64_t{context_.timing().fence_bound_ms});
    const auto silent = context_.now - peers_.lost_since(node);
    if (silent < twice) {
        return fail(ErrorCode::failed_precondition,
                    node + " has been silent for " + std::to_string(silent.milliseconds() / 1000) +
                        " s; repeat after " + std::to_string(twice.milliseconds() / 1000) + " s of silence");
    }
    return {};
}

Status Arbiter::confirm_down(const std::string& node) {
    if (auto may = may_confirm_down(node); !may) return may;
    peer_ = node;
    proof_ = {ProofKind::operator_word, lost_life(), peers_.lost_since(node), context_.now, ""};
    if (state_ != State::preparing && state_ != State::prepared && state_ != State::activating) {
        move(State::proven, "the operator says that " + node + " is off");
    }
    return {};
}

Status Arbiter::may_start_alone() const {
    if (context_.store == StoreCondition::split_brain) return boot_.may_keep_own();
    if (context_.withdrawn) {
        return fail(ErrorCode::failed_precondition,
                    "this node has left; 'systemctl restart gemel-clusterd' here lets it join again");
    }
    if (context_.store_quorate()) {
        return fail(ErrorCode::failed_precondition, "the store is quorate; there is nothing to start alone");
    }
    if (!context_.other_voter()) {
        return fail(ErrorCode::failed_precondition,
                    "this node is not one of two voters; with a witness bring the "
                    "witness or the other node back");
    }
    if (context_.store == StoreCondition::old) {
        return fail(ErrorCode::failed_precondition, "another node has a later store: " + boot_.why());
    }
    if (peers_.answers(*context_.other_voter()) && !storeless(*context_.other_voter())) {
        return fail(ErrorCode::failed_precondition,
                    *context_.other_voter() + " answers; bring its store back instead");
    }
    if (!context_.latest.lineage) {
        return fail(ErrorCode::unavailable,
                    "this node has not read its own copy of the store yet; repeat in a few seconds");
    }
    return {};
}

Status Arbiter::start_alone() {
    if (auto may = may_start_alone(); !may) return may;
    if (context_.store == StoreCondition::split_brain) {
        boot_.keep_own();
        return {};
    }
    peer_ = *context_.other_voter();
    accept_loss_ = true;
    fenced_once_ = false;
    not_before_ = {};
    if (proof_.kind == ProofKind::none)
        move(State::waiting_turn, "the operator accepts loss: fencing " + peer_);
    return {};
}

void Arbiter::idle() {
    if (context_.store_quorate() || context_.store == StoreCondition::starting) return;
    if (context_.now - unquorate_since_ < milliseconds(2 * std::int64_t{context_.timing().heartbeat_ms}))
        return;
    const auto* record = context_.node(peer_);
    const bool left =
        record != nullptr && record->state == NodeState::left && record->left_incarnation == lost_life();
    if (left && !peers_.answers(peer_) && standing()) {
        proof_ = {ProofKind::leave, record->left_incarnation, peers_.lost_since(peer_), context_.now, ""};
        return move(State::proven, peer_ + " has left cleanly");
    }
    if (!peers_.answers(peer_) || (mutant("ask_skipped") && need())) {
        return move(State::waiting_turn, peer_ + " is silent on all paths");
    }
    const bool silent_daemons = !peers_.alive(peer_);
    const bool grace_over =
        context_.now - peers_.lost_since(peer_) > milliseconds(context_.timing().restart_grace_ms);
    const bool frozen =
        need() && context_.now - unquorate_since_ > milliseconds(context_.timing().link_loss_ms);
    if (!frozen && !storeless(peer_) && !(silent_daemons && grace_over)) return;
    if (!standing()) return;
    const auto [high, low] = context_.random();
    ask_id_ = OperationId::from_random(high, low);
    move(State::asking, "asking " + peer_ + ", which still answers, to release");
    ask();
}

void Arbiter::ask() {
    peers_.send(peer_,
                AskRelease{ask_id_, lost_life(), context_.latest.lineage_id(), context_.latest.revision});
    not_before_ = context_.now + milliseconds(context_.timing().heartbeat_ms);
}

void Arbiter::wait_turn() {
    // It was silent when the turn began, or when the last fencing failed; now it is to be asked first (N3,
    // H29).
    if (peers_.answers(peer_) && !refused_ && !accept_loss_ && !fence_running_ && !mutant("ask_skipped")) {
        return reset(peer_ + " answers again");
    }
    if (!standing()) {
        why_ = "no standing: this node has not met " + peer_ +
               " in a quorate store since it booted or was paused";
        return;
    }
    if (fence_running_ || context_.now < std::max(not_before_, context_.aimed_at_until) || !my_turn()) return;
    if (auto refusal = promotable_refusal(); !refusal.empty() && !accept_loss_) {
        why_ = refusal;
        return;
    }
    const bool late =
        context_.now - peers_.lost_since(peer_) > milliseconds(context_.timing().fence_bound_ms);
    if (late && !accept_loss_ && !mutant("proof_unbounded")) {
        why_ = "the fence bound is over: only 'gemel node confirm-down " + peer_ + "' proves its loss now";
        return;
    }
    fence();
}

void Arbiter::fence() {
    const auto* device = device_for(context_.latest, peer_);
    if (device == nullptr) {
        why_ = "there is no fence device for " + peer_ + ": switch it off, then 'gemel node confirm-down " +
               peer_ + "' proves its loss";
        not_before_ = context_.now + kFenceRetry;
        accept_loss_ = false;
        return;
    }
    move(State::fencing, "fencing " + peer_ + " by " + device->name);
    context_.event("warning", "node.fencing", "node/" + peer_, "is being fenced by " + device->name);
    fence_running_ = true;
    proof_ = {};
    proof_.device = device->name;
    context_.fence(FenceAction::off, *device,
                   [this, began = context_.now, life = lost_life()](const FenceDone& done) {
                       fenced(done, began, life);
                   });
}

void Arbiter::fenced(const FenceDone& done, Instant began, const Incarnation& life) {
    fence_running_ = false;
    if (state_ != State::fencing) return;
    const bool good = done.outcome == FenceOutcome::verified_off || mutant("fence_unverified_accepted");
    if (!good) {
        context_.event("error", "node.fence-failed", "node/" + peer_, done.detail);
        not_before_ = context_.now + kFenceRetry;
        accept_loss_ = false;
        // Whoever refused to release, or did not answer, was the life before (seed 72629).
        if (life != lost_life()) return reset(peer_ + " answers with a new life");
        return move(State::waiting_turn, "fencing " + peer_ + " failed: " + done.detail);
    }
    if (!mutant("proof_not_voided") && !mutant("fence_any_incarnation") &&
        (peers_.lost_since(peer_) > began || life != lost_life())) {
        // Ordered against a peer that answered all the while: it is off now, and an attempt that begins in
        // its silence proves it. Once: who answers that one too is not the one that was switched off.
        if (accept_loss_ && life == lost_life() && !std::exchange(fenced_once_, true)) {
            not_before_ = context_.now + context_.suspicion();
            return move(State::waiting_turn, peer_ + " answered until it was off: verifying that once more");
        }
        return reset("the peer answered while it was fenced");
    }
    proof_ = {ProofKind::fence, life, peers_.lost_since(peer_), context_.now, proof_.device};
    context_.event("warning", "node.fenced", "node/" + peer_, "verified off");
    move(State::proven, peer_ + " is verified off");
}

Txn Arbiter::first_commit() {
    const Tables& tables = context_.latest;
    Txn txn;
    const LineageRecord next = context_.next_lineage({}, why_);
    new_lineage_ = next.id;
    txn.puts.push_back({std::string(keys::kLineage), encode(next), 0});
    ClusterRecord cluster = tables.cluster->record;
    std::erase_if(cluster.voters, [&](const auto& voter) { return voter.name != context_.config.name; });
    if (cluster.voters.empty()) {
        // Promoted by etcd already, not yet named a voter by the record.
        for (const auto& known : context_.config.initial_voters) {
            if (known.name == context_.config.name) cluster.voters.push_back(known);
        }
    }
    cluster.adding_voter.clear();
    cluster.removing_voter.clear();
    txn.puts.push_back({std::string(keys::kCluster), encode(cluster), 0});
    txn.deletes.push_back(
        std::string(keys::kCoordinator));  // of the lost node, or of a term of the old lineage
    // A leave is taken back by registering anew: the copy may hold that where the tables read here do not
    // yet.
    const auto left = context_.gated.nodes.find(peer_);
    if (proof_.kind == ProofKind::leave && left != context_.gated.nodes.end())
        context_.reads(txn, keys::node(peer_), left->second);
    const auto row = tables.nodes.find(peer_);
    const bool by_fence = proof_.kind == ProofKind::fence || proof_.kind == ProofKind::release;
    if (row != tables.nodes.end() && proof_.kind != ProofKind::leave) {
        NodeRecord victim = row->second.record;
        victim.fence = {by_fence ? FenceState::verified : FenceState::requested,
                        victim.incarnation,
                        context_.config.name,
                        by_fence ? proof_.device : "operator",
                        victim.fence.attempt + 1,
                        proof_.kind != ProofKind::fence};
        txn.puts.push_back({keys::node(peer_), encode(victim), 0});
    }
    return txn;
}

void Arbiter::prepare() {
    if (!proof_holds()) {
        return reset("the proof of " + peer_ + "'s loss has grown old");
    }
    if (!standing()) {
        why_ = "no standing: 'gemel cluster start --alone --accept-loss' overrides";
        return;
    }
    if (!context_.latest.lineage || !context_.latest.cluster) {
        why_ = "the store's contents are not known in this life; it cannot be forced";
        return;
    }
    move(State::preparing, "making a single member of a copy of the store");
    context_.store = StoreCondition::forcing;
    context_.store_command(ForcePrepare{first_commit()}, [this](const StoreCommandDone& done) {
        if (state_ != State::preparing) return;
        if (!done.ok) {
            context_.event("error", "store.force-failed", "store", done.detail);
            return reset("forcing failed: " + done.detail);
        }
        prepared_ = true;
        move(State::prepared, "the copy is forced");
    });
}

void Arbiter::evaluate() {
    if (context_.store_quorate() != was_quorate_) unquorate_since_ = context_.now;
    was_quorate_ = context_.store_quorate();
    if (context_.withdrawn) {
        // It gave up its say when it began to leave: what happens now is the others' business.
        if (state_ != State::idle && state_ != State::activating) reset("this node is leaving");
        return;
    }
    if (own_vote_is_open(context_) && !accept_loss_ && !mutant("open_vote_ignored")) {
        if (state_ != State::idle && state_ != State::activating)
            reset("the vote of this node is not committed");
        return;
    }
    const auto other = context_.other_voter();
    if (!other) {
        if (state_ == State::activating && context_.store_quorate()) reset("this node is the only voter");
        if (state_ != State::activating && state_ != State::idle) reset("not one of two voters");
        return;
    }
    if (state_ == State::idle) peer_ = *other;
    if (state_ != State::activating && context_.store_quorate() && state_ != State::idle) {
        return reset("the store is quorate");
    }
    switch (state_) {
        case State::idle: return idle();
        case State::asking:
            if (context_.now - since_ > milliseconds(context_.timing().ask_ms)) {
                refused_ = true;
                return move(State::waiting_turn, peer_ + " did not answer in time");
            }
            if (context_.now >= not_before_) ask();
            return;
        case State::waiting_turn: return wait_turn();
        case State::fencing: return;
        case State::proven: return prepare();
        case State::preparing: return;
        case State::prepared:
            if (!proof_holds()) return reset("the proof of " + peer_ + "'s loss has grown old");
            prepared_ = false;
            move(State::activating, "starting the forced store");
            context_.tables_live = false;  // until the forced store has been read
            boot_.expect_lineage(new_lineage_);
            context_.store_command(ForceActivate{}, [this](const StoreCommandDone& done) {
                if (!done.ok) {
                    boot_.expect_lineage({});
                    return reset("the forced copy could not be put in place: " + done.detail);
                }
                context_.event("warning", "store.forced", "store", "this node is the only voter now");
                context_.store = StoreCondition::waiting;
                boot_.forced();
                accept_loss_ = false;
                proof_ = {};
            });
            return;
        case State::activating: return;
    }
}

}  // namespace gemel::cluster
