#include "core/cluster/leaver.hpp"

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

Status Leaver::may_leave() const {
    if (state_ == State::left) return fail(ErrorCode::failed_precondition, "this node has left already");
    if (!context_.acting || !context_.store_quorate()) {
        return fail(ErrorCode::failed_precondition,
                    "the store is not quorate or this node has not rejoined: it cannot leave cleanly; "
                    "gemel status says why");
    }
    return {};
}

Status Leaver::asked() {
    if (auto may = may_leave(); !may) return may;
    if (state_ == State::idle) state_ = State::announcing;
    return {};
}

std::string Leaver::step() const {
    switch (state_) {
        case State::idle: return "";
        case State::announcing: return "announcing that it leaves";
        case State::emptying: return "stopping its guests and giving their volumes back";
        case State::closing: return "closing its volumes";
        case State::leaving: return "committing that it has left";
        case State::left: return "left";
    }
    return "";
}

void Leaver::commit_state(NodeState to, State then) {
    const std::string& name = context_.config.name;
    const auto row = context_.gated.nodes.find(name);
    if (row == context_.gated.nodes.end()) return;
    NodeRecord next = row->second.record;
    next.state = to;
    Txn txn;
    context_.reads(txn, keys::node(name), row->second);
    if (to == NodeState::left) {
        next.left_incarnation = context_.config.incarnation;
        for (const auto& [volume, held] : context_.gated.volumes)
            context_.reads(txn, keys::volume(volume), held);
        const auto& key = context_.gated.coordinator;
        if (key && key->record.node == name) {
            txn.compares.push_back(
                {std::string(keys::kCoordinator), CompareKind::create_revision, key->created, {}});
            txn.deletes.push_back(std::string(keys::kCoordinator));
        }
    }
    txn.puts.push_back({keys::node(name), encode(next), 0});
    busy_ = true;
    context_.commit(std::move(txn), false, true, [this, then](const JobResult& result) {
        busy_ = false;
        repeat_at_ = context_.now + milliseconds(200);
        if (!result.committed) return;
        state_ = then;
        if (then == State::left) {
            context_.acting = false;
            context_.emit(LeaveDone{true, ""});
        }
    });
}

// An owner elsewhere still counts this node's replicas, whose blockd has closed: its writes are frozen until
// it has committed that they left, for which one of two voters needs this one's vote. Bounded: the owner may
// be as dead as this node will be.
bool Leaver::waited_for() const {
    constexpr Duration kPatience = seconds(5);
    if (context_.now - closed_at_ > kPatience) return false;
    for (const auto& [name, row] : context_.gated.volumes) {
        const auto& owner = row.record.owner;
        if (owner && owner->node != context_.config.name && in_ack_set(row.record, context_.config.name))
            return true;
    }
    return false;
}

// Exports end with the node; guests' leases are given back by the guest agent.
void Leaver::release_exports() {
    for (const auto& [name, row] : context_.gated.volumes) {
        const auto& owner = row.record.owner;
        if (!owner || owner->node != context_.config.name || owner->purpose != "export") continue;
        busy_ = true;
        const Tag tag = context_.tag();
        context_.emit(BlockdRelease{tag, row.record.id, owner->epoch});
        context_.blockd_waits[tag] = [this, volume = name](const BlockdDone& done) {
            busy_ = false;
            repeat_at_ = context_.now + milliseconds(200);
            const auto at = context_.gated.volumes.find(volume);
            if (!done.ok || at == context_.gated.volumes.end()) return;
            Txn txn;
            context_.reads(txn, keys::volume(volume), at->second);
            txn.puts.push_back({keys::volume(volume), encode(released(at->second.record)), 0});
            context_.commit(std::move(txn), false, false, nullptr);
        };
        return;
    }
}

void Leaver::evaluate() {
    if (state_ == State::idle || state_ == State::left || busy_ || context_.now < repeat_at_) return;
    if (!context_.acting || !context_.store_quorate()) return;
    switch (state_) {
        case State::announcing: return commit_state(NodeState::leaving, State::emptying);
        case State::emptying:
            if (!guests_.empty()) return;
            if (volumes_.owns_any()) return release_exports();
            state_ = State::closing;
            context_.withdrawn = true;
            return;
        case State::closing: {
            busy_ = true;
            const Tag tag = context_.tag();
            context_.blockd_waits[tag] = [this](const BlockdDone& done) {
                busy_ = false;
                repeat_at_ = context_.now + milliseconds(500);
                if (!done.ok) return;
                state_ = State::leaving;
                closed_at_ = context_.now;
            };
            context_.emit(BlockdCloseAll{tag});
            return;
        }
        case State::leaving:
            if (waited_for()) return;
            return commit_state(NodeState::left, State::left);
        case State::idle:
        case State::left: return;
    }
}

}  // namespace gemel::cluster
