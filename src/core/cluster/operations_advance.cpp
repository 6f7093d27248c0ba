// What the coordinator does for each running operation once the nodes did their parts. See operations.hpp.
#include <charconv>

#include "core/cluster/operations.hpp"
#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {
namespace {

// Parts of a volume operation: 0 still open, 1 all ok, -1 one failed (why is set).
int parts(const OperationRecord& operation, const VolumeRecord& volume, std::string& why) {
    bool open = false;
    for (const auto& replica : volume.replicas) {
        const auto done = operation.done.find(replica.node);
        if (done == operation.done.end()) {
            open = true;
        } else if (done->second != "ok") {
            why = replica.node + ": " + done->second;
            return -1;
        }
    }
    return open ? 0 : 1;
}
ErrorCode code_of(const std::string& word) {
    for (const auto code :
         {ErrorCode::invalid_argument, ErrorCode::already_exists, ErrorCode::failed_precondition,
          ErrorCode::unavailable, ErrorCode::corrupt, ErrorCode::unsupported, ErrorCode::out_of_space}) {
        if (to_string(code) == word) return code;
    }
    return ErrorCode::io_error;
}

}  // namespace

void Operations::advance(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    seen_at_.try_emplace(operation.id, context_.now);
    if (operation.kind == "vm.start" || operation.kind == "vm.stop") return advance_guest(row);
    if (operation.kind == "vm.migrate") return advance_migrate(row);
    if (operation.kind == "node.drain") return advance_drain(row);
    if (operation.kind == "node.confirm-down") return advance_confirm(row);
    if (!context_.gated.volumes.contains(name_of(operation))) {
        return finish(row, OperationState::failed, ErrorCode::not_found, "the volume is gone", {});
    }
    if (operation.kind == "volume.create") return advance_create(row);
    if (operation.kind == "volume.delete") return advance_delete(row);
    if (operation.kind == "volume.export") return advance_export(row);
    if (operation.kind == "volume.resolve") return advance_resolve(row);
    if (operation.kind == "volume.unexport") {
        const auto& owner = context_.gated.volumes.at(name_of(operation)).record.owner;
        if (!owner || owner->purpose != "export")
            finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
    }
}

void Operations::advance_guest(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    const std::string name = name_of(operation);
    const auto at = context_.gated.guests.find(name);
    if (at == context_.gated.guests.end()) {
        return finish(row, OperationState::failed, ErrorCode::not_found, "the guest is gone", {});
    }
    const GuestRecord& guest = at->second.record;
    if (operation.kind == "vm.start") {
        if (guest.placement && guest.placement->phase == GuestPhase::running) {
            return finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
        }
        if (guest.wish == GuestWish::stopped) {
            return finish(row, OperationState::failed, ErrorCode::failed_precondition,
                          "it was stopped meanwhile", {});
        }
        if (!guest.placement && guest.restarts >= GuestRecord::kMaxRestarts) {
            return finish(row, OperationState::failed, ErrorCode::failed_precondition, guest.last_error, {});
        }
        const auto blocked = context_.blocked.find("vm/" + name);
        const std::string step = blocked == context_.blocked.end() ? "start" : blocked->second.why;
        if (operation.step != step && !guest.placement) {
            OperationRecord next = operation;
            next.step = step;
            update(row, std::move(next), {}, true);
        }
        return;
    }
    if (!guest.placement) return finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
    if (guest.wish == GuestWish::running) {
        return finish(row, OperationState::failed, ErrorCode::failed_precondition,
                      "it was started again meanwhile", {});
    }
    std::int64_t timeout_ms = 120000;
    if (const auto given = operation.arguments.find("timeout_ms"); given != operation.arguments.end()) {
        std::from_chars(given->second.data(), given->second.data() + given->second.size(), timeout_ms);
    }
    if (guest.power_off || context_.now - seen_at_[operation.id] < milliseconds(timeout_ms)) return;
    GuestRecord next = guest;
    next.wish = GuestWish::running;
    Txn txn;
    context_.reads(txn, keys::guest(name), at->second);
    txn.puts.push_back({keys::guest(name), encode(next), 0});
    finish(row, OperationState::failed, ErrorCode::timed_out,
           "the guest did not shut down in time and goes on; gemel vm stop --power-off " + name,
           std::move(txn));
}

void Operations::advance_create(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    const auto& volume = context_.gated.volumes.at(name_of(operation));
    std::string why;
    const int state = parts(operation, volume.record, why);
    Txn txn;
    context_.reads(txn, keys::volume(volume.record.name), volume);
    if (operation.step == "format" && state > 0) {
        VolumeRecord next = volume.record;
        for (auto& replica : next.replicas) {
            replica.state = ReplicaState::up_to_date;
            replica.in_ack_set = true;
        }
        txn.puts.push_back({keys::volume(next.name), encode(next), 0});
        return finish(row, OperationState::succeeded, ErrorCode::internal, "", std::move(txn));
    }
    if (operation.step == "format" && state < 0) {
        OperationRecord next = operation;
        next.step = "undo";
        next.error = why;
        next.done.clear();
        return update(row, std::move(next), {}, true);
    }
    if (operation.step == "undo" && state != 0) {
        txn.deletes.push_back(keys::volume(volume.record.name));
        finish(row, OperationState::failed, code_of(operation.error_code), operation.error, std::move(txn));
    }
}

void Operations::advance_delete(const OperationRow& row) {
    const auto& volume = context_.gated.volumes.at(name_of(row.record));
    std::string why;
    const int state = parts(row.record, volume.record, why);
    if (state == 0) return;
    if (state < 0) {
        // Tried again after a pause; the record says why it takes long.
        if (context_.now < seen_at_[row.record.id]) return;
        seen_at_[row.record.id] = context_.now + seconds(5);
        OperationRecord next = row.record;
        next.done.clear();
        next.error = why;
        return update(row, std::move(next), {}, true);
    }
    Txn txn;
    context_.reads(txn, keys::volume(volume.record.name), volume);
    txn.deletes.push_back(keys::volume(volume.record.name));
    finish(row, OperationState::succeeded, ErrorCode::internal, "", std::move(txn));
}

void Operations::advance_export(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    const auto& volume = context_.gated.volumes.at(name_of(operation));
    const auto* node = context_.node(operation.node);
    if (operation.step == "serve") {
        const auto& owner = volume.record.owner;
        const bool ours = owner && owner->node == operation.node && owner->purpose == "export" &&
                          !proven_gone(context_.gated, owner->node, owner->incarnation);
        if (!ours)
            finish(row, OperationState::failed, ErrorCode::unavailable,
                   "the export ended before it was served", {});
        return;
    }
    const auto alive = [this](const std::string& name) {
        return name == context_.config.name || peers_.alive(name);
    };
    if (node == nullptr || !alive(operation.node)) {
        return finish(row, OperationState::failed, ErrorCode::unavailable,
                      operation.node + " does not answer", {});
    }
    if (const auto why = grant_refusal(context_.gated, volume.record, operation.node, alive); !why.empty()) {
        return finish(row, OperationState::failed, ErrorCode::failed_precondition, why, {});
    }
    const auto [high, low] = context_.random();
    const VolumeRecord next = granted(context_.gated, volume.record,
                                      {operation.node, node->incarnation, context_.secret(), "export",
                                       GenerationId::from_random(high, low)});
    Txn txn;
    context_.reads(txn, keys::volume(next.name), volume);
    for (const auto& [name, other] : context_.gated.nodes) context_.reads(txn, keys::node(name), other);
    txn.puts.push_back({keys::volume(next.name), encode(next), 0});
    OperationRecord after = operation;
    after.step = "serve";
    update(row, std::move(after), std::move(txn), true);
}

void Operations::advance_resolve(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    const auto& volume = context_.gated.volumes.at(name_of(operation));
    const auto done = operation.done.find(operation.arguments.at("loser"));
    if (done == operation.done.end()) return;
    if (done->second != "ok") {
        return finish(row, OperationState::failed, code_of(operation.error_code), done->second, {});
    }
    const auto fresh = ReplicaId::parse(operation.arguments.at("new_replica"));
    const auto held = GenerationId::parse(operation.arguments.at("held"));
    if (!fresh || !held)
        return finish(row, OperationState::failed, ErrorCode::corrupt, "the operation's record is damaged",
                      {});
    VolumeRecord next = volume.record;
    const auto [high, low] = context_.random();
    // The other one was set aside meanwhile, which takes its time: the kept one may have gone on alone.
    const std::string& keep = operation.arguments.at("keep");
    restart_from(next, keep, kept_generation(next, keep, *held), GenerationId::from_random(high, low));
    for (auto& replica : next.replicas) {
        if (replica.node == keep) continue;
        replica.replica = *fresh;
        replica.state = ReplicaState::inconsistent;
    }
    Txn txn;
    context_.reads(txn, keys::volume(next.name), volume);
    txn.puts.push_back({keys::volume(next.name), encode(next), 0});
    finish(row, OperationState::succeeded, ErrorCode::internal, "", std::move(txn));
}

void Operations::advance_confirm(const OperationRow& row) {
    const std::string node = name_of(row.record);
    if (node_gone(context_.gated, node))
        return finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
    if (node == context_.config.name) {  // the one that was asked is gone, and who takes over is the victim
        return finish(row, OperationState::failed, ErrorCode::failed_precondition,
                      node + " answers, it coordinates the cluster now: it is not down", {});
    }
    if (row.record.step == "confirm") {
        if (auto ok = arbiter_.may_confirm_down(node); !ok) {
            return finish(row, OperationState::failed, ok.error().code, ok.error().message, {});
        }
        coordinator_.confirm_down(node);
        OperationRecord next = row.record;
        next.step = "waiting out the regrant bound";
        next.node = context_.config.name;
        return update(row, std::move(next), {}, true);
    }
    if (coordinator_.waiting().contains(node)) return;
    if (row.record.node != context_.config.name)
        return coordinator_.confirm_down(node);  // a new coordinator waits anew
    finish(row, OperationState::failed, ErrorCode::failed_precondition, node + " answers: it is not down",
           {});
}

}  // namespace gemel::cluster
