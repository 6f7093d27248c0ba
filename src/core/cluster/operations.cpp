#include "core/cluster/operations.hpp"

#include <algorithm>
#include <cstdint>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

std::string Operations::name_of(const OperationRecord& operation) {
    return operation.object.substr(operation.object.find('/') + 1);
}

// ---- requests
// -----------------------------------------------------------------------------------------------------

void Operations::request(const ApiRequest& request) {
    if (const auto old = memory_.find(request.operation); old != memory_.end()) {
        return context_.emit(ApiAnswer{request.tag, old->second});
    }
    if (const auto old = context_.gated.operations.find(request.operation.to_string());
        old != context_.gated.operations.end()) {
        return context_.emit(ApiAnswer{request.tag, old->second.record});
    }
    if (auto ok = validate(request.command); !ok) {
        return context_.emit(ApiAnswer{request.tag, tl::unexpected<Error>(ok.error())});
    }
    OperationRecord operation;
    operation.id = request.operation;
    operation.kind = std::string(kind_of(request.command));
    operation.object = object_of(request.command);
    operation.node = context_.config.name;
    if (begin_in_memory(request, operation)) return;
    try_begin({request, 0, context_.now});
}

void Operations::when_seen(std::uint64_t revision, std::function<void()> then) {
    unseen_.push_back({revision, context_.now + kSeenPatience, std::move(then)});
}

void Operations::tell_seen() {
    auto waiting = std::exchange(unseen_, {});
    for (auto& one : waiting) {
        if (context_.gated.revision >= one.revision || context_.now >= one.patience_ends) {
            one.then();
        } else {
            unseen_.push_back(std::move(one));
        }
    }
}

void Operations::try_begin(Pending pending) {
    const ApiRequest& request = pending.request;
    if (!context_.acting || !context_.store_quorate()) {
        return context_.emit(
            ApiAnswer{request.tag, fail(ErrorCode::unavailable,
                                        "nothing can be changed now: the store has no quorum, or this node "
                                        "has not rejoined; gemel status says why")});
    }
    // What the operator saw a moment ago must count here too: wait until decisions read it.
    if (!context_.gate_open && pending.attempts < kAttempts) {
        ++pending.attempts;
        pending.not_before = context_.now + milliseconds(50);
        return retry_.push_back(std::move(pending));
    }
    OperationRecord operation;
    operation.id = request.operation;
    operation.kind = std::string(kind_of(request.command));
    operation.object = object_of(request.command);
    operation.node = context_.config.name;
    Txn txn;
    if (auto ok = begin(request.command, operation, txn); !ok) {
        return context_.emit(ApiAnswer{request.tag, tl::unexpected<Error>(ok.error())});
    }
    const std::string key = keys::operation(operation.id);
    context_.absent(txn, key);
    txn.puts.push_back({key, encode(operation), 0});
    context_.commit(
        std::move(txn), false, false, [this, pending, operation](const JobResult& result) mutable {
            if (result.committed) {
                return when_seen(result.revision, [this, tag = pending.request.tag, operation] {
                    context_.emit(ApiAnswer{tag, operation});
                });
            }
            if (++pending.attempts < kAttempts) {
                pending.not_before = context_.now + milliseconds(100) * pending.attempts;
                return retry_.push_back(pending);
            }
            context_.emit(ApiAnswer{pending.request.tag,
                                    fail(ErrorCode::unavailable,
                                         "the cluster kept changing meanwhile; nothing was done, repeat")});
        });
}

std::optional<Status> Operations::begin_without_store(const ApiCommand& command, OperationRecord& operation) {
    if (const auto* alone = std::get_if<StartAlone>(&command)) {
        const std::string name =
            context_.gated.cluster ? context_.gated.cluster->record.name : context_.config.cluster_name;
        const bool choosing = context_.store == StoreCondition::split_brain;
        operation.step = choosing ? "choosing this node's history" : "proving that the other node is off";
        if (choosing) operation.arguments["history"] = "own";
        if (alone->confirm_name != name)
            return fail(ErrorCode::invalid_argument,
                        "confirm_name: expected '" + name + "', the cluster's name");
        return arbiter_.start_alone();
    }
    if (const auto* down = std::get_if<ConfirmDown>(&command);
        down != nullptr && !(context_.acting && context_.store_quorate())) {
        operation.arguments["node"] = down->node;
        operation.step = "forcing the store";
        return arbiter_.confirm_down(down->node);
    }
    if (const auto* leave = std::get_if<NodeLeave>(&command)) {
        if (leave->node != context_.config.name)
            return fail(ErrorCode::failed_precondition,
                        "a node leaves by its own word: run 'gemel node leave " + leave->node + "' on " +
                            leave->node);
        const Status begun = leaver_.asked();
        operation.step = leaver_.step();
        return begun;
    }
    return std::nullopt;
}

// A fence that ends after the bound proves nothing; without a witness the side whose turn is second waits for
// the other's turn before its own, which may begin late in it (design note 0004).
Status Operations::fence_in_time(const FenceDeviceRecord& device) const {
    const auto& timing = context_.timing();
    const bool two = context_.voter_count() <= 2;
    constexpr auto turns_ms = static_cast<std::uint32_t>(Arbiter::kTurnsCost.milliseconds());
    const std::uint32_t before = timing.suspicion_ms + timing.ask_ms + (two ? turns_ms : 0);
    const std::uint32_t left = timing.fence_bound_ms > before ? timing.fence_bound_ms - before : 0;
    const std::uint32_t longest = two ? left / 2 : left;
    if (device.timeout_ms <= longest) return {};
    return fail(ErrorCode::invalid_argument,
                "timeout: at most " + std::to_string(longest / 1000) + " s is expected " +
                    (two ? "without a witness, where one node's attempt waits for the other's: " : "here: ") +
                    "an attempt must end within " + std::to_string(timing.fence_bound_ms / 1000) +
                    " s of the loss to prove it; use a quicker device or a shorter time-out");
}

std::optional<Status> Operations::begin_fence(const ApiCommand& command, OperationRecord& operation) {
    operation.step = "asking the device";
    if (const auto* set = std::get_if<FenceSet>(&command)) {
        if (!context_.acting || !context_.store_quorate())
            return fail(ErrorCode::unavailable,
                        "nothing can be changed now: the store has no quorum; gemel status says why");
        if (context_.node(set->device.node) == nullptr)
            return fail(ErrorCode::not_found,
                        "there is no node named " + set->device.node + "; gemel node list shows them");
        return fence_in_time(set->device);
    }
    if (const auto* test = std::get_if<FenceTest>(&command)) {
        if (!context_.latest.fence_devices.contains(test->name))
            return fail(ErrorCode::not_found,
                        "there is no fence device named " + test->name + "; gemel fence list shows them");
        return Status();
    }
    return std::nullopt;
}

bool Operations::begin_in_memory(const ApiRequest& request, OperationRecord& operation) {
    operation.state = OperationState::running;
    auto begun = begin_without_store(request.command, operation);
    if (!begun) begun = begin_fence(request.command, operation);
    if (!begun) return false;
    if (const Status& ok = *begun; !ok) {
        context_.emit(ApiAnswer{request.tag, tl::unexpected<Error>(ok.error())});
        return true;
    }
    constexpr std::size_t kMaxInMemory = 64;
    if (memory_.size() >= kMaxInMemory) {
        std::erase_if(memory_, [](const auto& one) { return one.second.state != OperationState::running; });
    }
    memory_[operation.id] = operation;
    seen_at_[operation.id] = context_.now;
    context_.emit(ApiAnswer{request.tag, operation});
    if (const auto* set = std::get_if<FenceSet>(&request.command)) fence_set(*set, operation);
    if (const auto* test = std::get_if<FenceTest>(&request.command)) fence_test(*test, operation);
    return true;
}

void Operations::finish_memory(const OperationId& id, OperationState state, ErrorCode code,
                               const std::string& error) {
    auto& operation = memory_[id];
    operation.state = state;
    operation.step.clear();
    if (state == OperationState::failed) {
        operation.error_code = std::string(to_string(code));
        operation.error = error;
    }
}

void Operations::fence_set(const FenceSet& c, const OperationRecord& operation) {
    context_.fence(FenceAction::status, c.device, [this, c, id = operation.id](const FenceDone& done) {
        const bool answered = done.outcome == FenceOutcome::on || done.outcome == FenceOutcome::verified_off;
        if (!answered) {
            return finish_memory(
                id, OperationState::failed, ErrorCode::unavailable,
                "the device did not answer a status request: check its address, user name and password; "
                "nothing was stored (" +
                    done.detail + ")");
        }
        context_.fence_tests[c.device.name] = {true, done.outcome == FenceOutcome::verified_off, done.detail,
                                               context_.wall_ms};
        Txn txn;
        txn.puts.push_back({keys::fence(c.device.name), encode(c.device), 0});
        context_.commit(std::move(txn), false, false, [this, id](const JobResult& result) {
            const auto state = result.committed ? OperationState::succeeded : OperationState::failed;
            when_seen(result.committed ? result.revision : 0, [this, id, state] {
                finish_memory(id, state, ErrorCode::unavailable, "the store did not take it; repeat");
            });
        });
    });
}

void Operations::fence_test(const FenceTest& c, const OperationRecord& operation) {
    const auto& device = context_.latest.fence_devices.at(c.name).record;
    context_.fence(
        FenceAction::status, device, [this, name = c.name, id = operation.id](const FenceDone& done) {
            const bool answered =
                done.outcome == FenceOutcome::on || done.outcome == FenceOutcome::verified_off;
            context_.fence_tests[name] = {answered, done.outcome == FenceOutcome::verified_off, done.detail,
                                          context_.wall_ms};
            finish_memory(
                id, answered ? OperationState::succeeded : OperationState::failed, ErrorCode::unavailable,
                "the device did not answer: check its address, user name and password (" + done.detail + ")");
        });
}

void Operations::watch_memory() {
    for (auto& [id, operation] : memory_) {
        if (operation.state != OperationState::running) continue;
        const bool alone = operation.kind == "cluster.start-alone";
        const bool down = operation.kind == "node.confirm-down";
        if (operation.kind == "node.leave") {
            operation.step = leaver_.step();
            if (leaver_.state() == Leaver::State::left)
                finish_memory(id, OperationState::succeeded, ErrorCode::internal, "");
        }
        if (!alone && !down) continue;
        if (alone && context_.acting && context_.store_quorate()) {
            finish_memory(id, OperationState::succeeded, ErrorCode::internal, "");
        } else if (down && node_gone(context_.gated, operation.arguments["node"])) {
            finish_memory(id, OperationState::succeeded, ErrorCode::internal, "");
        } else if (operation.arguments.contains("history")) {
            if (context_.now - seen_at_[id] > seconds(30))
                finish_memory(id, OperationState::failed, ErrorCode::unavailable,
                              "this node does not act on its history yet; gemel status says why");
        } else if (context_.now - seen_at_[id] > milliseconds(500) && !context_.store_quorate() &&
                   (arbiter_.state() == Arbiter::State::idle ||
                    (arbiter_.state() == Arbiter::State::waiting_turn && !arbiter_.accepting_loss()))) {
            finish_memory(id, OperationState::failed, ErrorCode::failed_precondition,
                          arbiter_.why().empty() ? "the proof of the other node's loss was void: it answers"
                                                 : arbiter_.why());
        } else {
            operation.step = arbiter_.why();
        }
    }
}

// ---- carrying out
// --------------------------------------------------------------------------------------------------

void Operations::evaluate() {
    tell_seen();
    watch_memory();
    auto retry = std::exchange(retry_, {});
    for (auto& pending : retry) {
        if (context_.now < pending.not_before) {
            retry_.push_back(std::move(pending));
        } else {
            try_begin(std::move(pending));
        }
    }
    if (!context_.acting || !context_.store_quorate() || !context_.gated.refused.empty()) return;
    for (const auto& [id, row] : context_.gated.operations) {
        if (row.record.state != OperationState::running || busy_.contains(row.record.id)) continue;
        local(row);
        if (context_.is_coordinator() && !busy_.contains(row.record.id)) advance(row);
    }
    if (context_.is_coordinator()) prune();
}

void Operations::update(const OperationRow& row, OperationRecord next, Txn txn, bool as_coordinator) {
    const std::string key = keys::operation(row.record.id);
    context_.reads(txn, key, row);
    txn.puts.push_back({key, encode(next), 0});
    busy_.insert(row.record.id);
    context_.commit(std::move(txn), as_coordinator, false,
                    [this, id = row.record.id](const JobResult&) { busy_.erase(id); });
}

void Operations::finish(const OperationRow& row, OperationState state, ErrorCode code,
                        const std::string& error, Txn txn) {
    OperationRecord next = row.record;
    next.state = state;
    next.step.clear();
    if (state == OperationState::failed) {
        next.error_code = std::string(to_string(code));
        next.error = error;
        context_.event("error", "operation.failed", next.object, next.kind + ": " + error);
    }
    seen_at_.erase(next.id);
    update(row, std::move(next), std::move(txn), true);
}

void Operations::local(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    if (operation.kind.compare(0, 7, "volume.") != 0) return;
    const auto volume = context_.gated.volumes.find(name_of(operation));
    if (volume == context_.gated.volumes.end()) return;
    const std::string& step = operation.step;
    if (step == "serve" && operation.node == context_.config.name) return local_serve(row, volume->second);
    if (step == "release") return local_unexport(row, volume->second);
    if (!context_.blockd_up || operation.done.contains(context_.config.name)) return;
    if (step == "format" || step == "delete" || step == "undo" || step == "replace") {
        local_replica(row, volume->second.record);
    }
}

void Operations::local_replica(const OperationRow& row, const VolumeRecord& record) {
    const OperationRecord& operation = row.record;
    const auto* mine = replica_on(record, context_.config.name);
    if (mine == nullptr) return;
    const Tag tag = context_.tag();
    if (operation.step == "format") {
        VolumeRecord begun = record;
        for (auto& replica : begun.replicas) {
            replica.state = ReplicaState::up_to_date;
            replica.in_ack_set = true;
        }
        context_.emit(BlockdFormat{tag, begun});
    } else if (operation.step == "replace") {
        if (operation.arguments.at("loser") != context_.config.name) return;
        const auto old = ReplicaId::parse(operation.arguments.at("old_replica"));
        const auto fresh = ReplicaId::parse(operation.arguments.at("new_replica"));
        if (!old || !fresh) return;
        VolumeRecord next = record;
        for (auto& replica : next.replicas) {
            if (replica.node != context_.config.name) continue;
            replica.replica = *fresh;
            replica.state = ReplicaState::inconsistent;
            replica.in_ack_set = false;
        }
        context_.emit(BlockdSetAside{tag, *old, next});
    } else {
        context_.emit(BlockdDelete{tag, record.id, record.name, mine->pool, mine->replica});
    }
    busy_.insert(operation.id);
    context_.blockd_waits[tag] = [this, id = operation.id](const BlockdDone& done) { part_done(id, done); };
}

void Operations::part_done(const OperationId& id, const BlockdDone& done) {
    busy_.erase(id);
    const auto row = context_.gated.operations.find(id.to_string());
    if (row == context_.gated.operations.end()) return;
    OperationRecord next = row->second.record;
    next.done[context_.config.name] = done.ok ? "ok" : done.error;
    if (!done.ok) next.error_code = done.error_code;
    update(row->second, std::move(next), {}, false);
}

void Operations::local_serve(const OperationRow& row, const Row<VolumeRecord>& volume) {
    const auto& owner = volume.record.owner;
    const auto facts = context_.volumes.find(volume.record.id);
    if (!owner || owner->node != context_.config.name || facts == context_.volumes.end()) return;
    const auto& view = facts->second.view;
    if (view.role != replication::Role::primary || view.epoch != owner->epoch) return;
    OperationRecord next = row.record;
    next.state = OperationState::succeeded;
    next.step.clear();
    next.result = {{"node", owner->node}, {"epoch", std::to_string(owner->epoch)}, {"secret", owner->secret}};
    update(row, std::move(next), {}, false);
}

void Operations::local_unexport(const OperationRow& row, const Row<VolumeRecord>& volume) {
    const auto& owner = volume.record.owner;
    if (!owner || owner->node != context_.config.name || owner->purpose != "export") return;
    busy_.insert(row.record.id);
    const Tag tag = context_.tag();
    context_.emit(BlockdRelease{tag, volume.record.id, owner->epoch});
    context_.blockd_waits[tag] = [this, id = row.record.id, name = volume.record.name,
                                  epoch = owner->epoch](const BlockdDone& done) {
        busy_.erase(id);
        const auto operation = context_.gated.operations.find(id.to_string());
        const auto at = context_.gated.volumes.find(name);
        if (!done.ok || operation == context_.gated.operations.end() || at == context_.gated.volumes.end())
            return;
        const auto& holder = at->second.record.owner;
        if (!holder || holder->epoch != epoch) return;
        Txn txn;
        context_.reads(txn, keys::volume(name), at->second);
        txn.puts.push_back({keys::volume(name), encode(released(at->second.record)), 0});
        OperationRecord next = operation->second.record;
        next.state = OperationState::succeeded;
        next.step.clear();
        update(operation->second, std::move(next), std::move(txn), false);
    };
}

void Operations::prune() {
    std::vector<std::pair<std::uint64_t, std::string>> finished;
    for (const auto& [id, row] : context_.gated.operations) {
        const auto state = row.record.state;
        if (state == OperationState::succeeded || state == OperationState::failed)
            finished.push_back({row.created, id});
    }
    if (pruning_ || finished.size() <= OperationRecord::kMaxFinished) return;
    std::sort(finished.begin(), finished.end());
    Txn txn;
    for (std::size_t i = 0; i + OperationRecord::kMaxFinished * 3 / 4 < finished.size() && i < 32; ++i) {
        txn.deletes.push_back(std::string(keys::kOperations) + finished[i].second);
    }
    pruning_ = true;
    context_.commit(std::move(txn), true, false, [this](const JobResult&) { pruning_ = false; });
}

}  // namespace gemel::cluster
