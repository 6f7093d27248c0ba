// Requests about moving guests: one guest, or all of a node. The moving itself is MigrationAgent's. See
// operations.hpp.
#include "core/cluster/migration_rules.hpp"
#include "core/cluster/operations.hpp"
#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

std::function<bool(const std::string&)> Operations::alive() const {
    return [this](const std::string& node) {
        return node == context_.config.name || peers_.clusterd_alive(node);
    };
}

Status Operations::begin_one(const GuestMigrate& c, OperationRecord& operation, Txn& txn) {
    auto row = guest(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    const GuestRecord& record = (*row)->record;
    std::string target = c.node;
    std::string why;
    if (target.empty()) {
        target = migration_target(context_.gated, record, alive(), why);
        if (target.empty())
            return fail(ErrorCode::failed_precondition, "no node can take " + c.name + " now: " + why);
    } else if (why = migration_refusal(context_.gated, record, target, alive()); !why.empty()) {
        const bool unknown = context_.node(target) == nullptr;
        return fail(unknown ? ErrorCode::not_found : ErrorCode::failed_precondition, why);
    }
    const HostResources& there = peers_.resources_of(target);
    if (there.known && there.memory_free_bytes < record.memory_bytes) {
        return fail(ErrorCode::failed_precondition,
                    target + " has " + std::to_string(there.memory_free_bytes >> 20) +
                        " MiB of memory free and " + c.name + " needs " +
                        std::to_string(record.memory_bytes >> 20) + " MiB; stop or move another guest first");
    }
    MigrationRecord migration;
    migration.node = target;
    migration.bandwidth_bytes = c.bandwidth_bytes;
    migration.downtime_ms = c.downtime_ms;
    migration.auto_converge = c.auto_converge;
    begin_move(**row, std::move(migration), operation, txn);
    return {};
}

void Operations::begin_move(const Row<GuestRecord>& guest, MigrationRecord migration,
                            OperationRecord& operation, Txn& txn) {
    operation.arguments["node"] = migration.node;
    operation.arguments["from"] = guest.record.placement->node;
    operation.state = OperationState::running;
    operation.step = migration.node + " gets ready";
    migration.operation = operation.id;
    open_migration(context_, guest, std::move(migration), txn);
}

Status Operations::begin_one(const GuestMigrateCancel& c, OperationRecord& operation, Txn& txn) {
    auto row = guest(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    GuestRecord next = (*row)->record;
    if (!next.migration)
        return fail(ErrorCode::failed_precondition, "guest " + c.name + " is not moving; nothing to cancel");
    next.migration->cancel = true;
    context_.reads(txn, keys::guest(c.name), **row);
    txn.puts.push_back({keys::guest(c.name), encode(next), 0});
    operation.state = OperationState::succeeded;
    return {};
}

Status Operations::set_drained(const std::string& node, bool drained, Txn& txn) {
    const auto row = context_.gated.nodes.find(node);
    if (row == context_.gated.nodes.end())
        return fail(ErrorCode::not_found, "there is no node named " + node + "; gemel node list shows them");
    NodeRecord next = row->second.record;
    next.drained = drained;
    context_.reads(txn, keys::node(node), row->second);
    txn.puts.push_back({keys::node(node), encode(next), 0});
    return {};
}

Status Operations::begin_one(const NodeDrain& c, OperationRecord& operation, Txn& txn) {
    bool another = false;
    for (const auto& [name, row] : context_.gated.nodes)
        another = another || (name != c.node && row.record.state == NodeState::member && !row.record.drained);
    if (context_.node(c.node) != nullptr && !another)
        return fail(ErrorCode::failed_precondition,
                    "there is no other node that guests could move to; add one, or undrain one, first");
    operation.state = OperationState::running;
    operation.step = "moving guests away";
    return set_drained(c.node, true, txn);
}

Status Operations::begin_one(const NodeUndrain& c, OperationRecord& operation, Txn& txn) {
    operation.state = OperationState::succeeded;
    return set_drained(c.node, false, txn);
}

// MigrationAgent at the source ends it where it decided; what is left to see here is how it ended otherwise.
void Operations::advance_migrate(const OperationRow& row) {
    const OperationRecord& operation = row.record;
    const std::string name = name_of(operation);
    const auto at = context_.gated.guests.find(name);
    if (at == context_.gated.guests.end())
        return finish(row, OperationState::failed, ErrorCode::not_found, "the guest is gone", {});
    const GuestRecord& guest = at->second.record;
    if (guest.migration && guest.migration->operation == operation.id) return;
    // The source ends it, and knows for how long the guest paused; unless it is gone.
    const auto [since, first] = moved_at_.try_emplace(operation.id.to_string(), context_.now);
    if (first || context_.now - since->second < kSourcePatience) return;
    moved_at_.erase(since);
    if (guest.placement && guest.placement->node == operation.arguments.at("node"))
        return finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
    finish(row, OperationState::failed, ErrorCode::unavailable,
           guest.placement ? "it was started anew on " + guest.placement->node + " meanwhile"
                           : "its node was lost, or it ended, while it moved",
           {});
}

// One after the other, so that each has the whole link.
bool Operations::drain_next(const OperationRow& row, std::string& waits) {
    const std::string node = name_of(row.record);
    for (const auto& [name, guest] : context_.gated.guests) {
        const auto& placement = guest.record.placement;
        if (!placement || placement->node != node) continue;
        const auto tried = moved_at_.find(name);
        const bool later = tried != moved_at_.end() && context_.now - tried->second < kMoveAgain;
        std::string why;
        const std::string target = migration_target(context_.gated, guest.record, alive(), why);
        if (target.empty() || later) {
            waits += (waits.empty() ? "" : "; ") +
                     (target.empty() ? why : name + " could not be moved and is tried again");
            continue;
        }
        moved_at_[name] = context_.now;
        const auto [high, low] = context_.random();
        OperationRecord child;
        child.id = OperationId::from_random(high, low);
        child.kind = "vm.migrate";
        child.object = "vm/" + name;
        child.node = context_.config.name;
        MigrationRecord migration;
        migration.node = target;
        Txn txn;
        begin_move(guest, std::move(migration), child, txn);
        context_.absent(txn, keys::operation(child.id));
        txn.puts.push_back({keys::operation(child.id), encode(child), 0});
        OperationRecord next = row.record;
        next.step = "moving " + name + " to " + target;
        update(row, std::move(next), std::move(txn), true);
        return true;
    }
    return false;
}

void Operations::advance_drain(const OperationRow& row) {
    const std::string node = name_of(row.record);
    const auto at = context_.gated.nodes.find(node);
    if (at == context_.gated.nodes.end() || !at->second.record.drained)
        return finish(row, OperationState::failed, ErrorCode::failed_precondition,
                      "it was undrained meanwhile; guests that moved stay where they are", {});
    std::size_t left = 0;
    for (const auto& [name, guest] : context_.gated.guests) {
        if (!guest.record.placement || guest.record.placement->node != node) continue;
        ++left;
        if (guest.record.migration) return;
    }
    if (left == 0) return finish(row, OperationState::succeeded, ErrorCode::internal, "", {});
    std::string waits;
    if (drain_next(row, waits) || row.record.step == "waiting: " + waits) return;
    OperationRecord next = row.record;
    next.step = "waiting: " + waits;
    update(row, std::move(next), {}, true);
}

}  // namespace gemel::cluster
