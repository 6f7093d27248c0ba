#include "core/cluster/views.hpp"

#include <algorithm>

#include "core/cluster/volume_rules.hpp"

namespace gemel::cluster {

std::vector<EventView> list_events(const Tables& tables, std::uint64_t after, std::size_t limit) {
    std::vector<EventView> all;
    for (const auto& [key, row] : tables.events) {
        for (std::size_t i = 0; i < row.record.events.size(); ++i) {
            const std::uint64_t sequence = row.revision * EventBatchRecord::kSlotEvents + i;
            if (sequence > after) all.push_back({sequence, row.record.events[i]});
        }
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.sequence < b.sequence; });
    if (all.size() > limit) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(limit));
    return all;
}

bool Views::alive(const std::string& node) const {
    return node == context_.config.name || node_.peers.alive(node);
}

const VolumeFacts* Views::facts(const VolumeRecord& record) const {
    const auto at = context_.volumes.find(record.id);
    return at == context_.volumes.end() ? nullptr : &at->second;
}

StoreView Views::store() const {
    StoreView view;
    switch (context_.store) {
        case StoreCondition::starting: view.state = "unknown"; break;
        case StoreCondition::waiting:
            view.state = context_.other_voter() && !node_.standing.holds() ? "waiting-for-peer" : "no-quorum";
            break;
        case StoreCondition::forcing: view.state = "forcing"; break;
        case StoreCondition::quorate: view.state = "quorate"; break;
        case StoreCondition::old: view.state = "old"; break;
        case StoreCondition::split_brain: view.state = "split-brain"; break;
    }
    if (!tables_.lineage_id().is_nil()) {
        view.lineage = tables_.lineage_id().to_string();
        view.revision = tables_.revision;
    }
    const auto voters = tables_.cluster ? tables_.cluster->record.voters : context_.config.initial_voters;
    for (const auto& voter : voters) {
        VoterView one{voter.name, voter.witness ? "witness" : "node", "unknown"};
        for (const auto& member : context_.health.members) {
            if (member.name == voter.name) one.state = member.answers ? "up" : "down";
        }
        if (voter.name == context_.config.name) {
            one.state = context_.health.rejected ? "rejected" : context_.health.answers ? "up" : "down";
        }
        view.voters.push_back(one);
    }
    return view;
}

std::string Views::node_state(const NodeRecord& record) const {
    const bool self = record.name == context_.config.name;
    if (record.state == NodeState::left && record.left_incarnation == record.incarnation) return "left";
    const auto& fence = record.fence;
    if (fence.incarnation == record.incarnation) {
        if (fence.state == FenceState::verified) return "fenced";
        if (fence.state == FenceState::confirmed_down) return "confirmed-down";
    }
    if (self) return node_.releaser.active() ? "releasing" : context_.acting ? "online" : "joining";
    const auto* peer = node_.peers.find(record.name);
    if (alive(record.name)) {
        return peer != nullptr && node_.peers.clusterd_alive(record.name) && !peer->heartbeat.acting
                   ? "joining"
                   : "online";
    }
    if (node_.arbiter.state() == Arbiter::State::asking) return "releasing";
    const bool fencing = fence.state == FenceState::requested && fence.incarnation == record.incarnation;
    if (fencing || node_.arbiter.state() == Arbiter::State::fencing) return "fencing";
    if (peer == nullptr || !peer->heard_ever) return "unknown";
    return context_.now - node_.peers.lost_since(record.name) < seconds(30) ? "suspected" : "offline";
}

std::vector<RungView> Views::rungs(const NodeRecord& record) const {
    const auto& timing = context_.timing();
    std::vector<RungView> list;
    list.push_back({"clean-leave", "ok", {}, {}, {}, {}});
    RungView fence{"fence-device", "absent", {}, {}, {}, {}};
    for (const auto& one : fence_devices()) {
        if (one.device.node != record.name) continue;
        fence = {"fence-device",        one.state, one.device.name, one.tested_wall_ms,
                 one.device.timeout_ms, one.detail};
    }
    list.push_back(fence);
    list.push_back({"watchdog", record.watchdog_armed ? "ok" : "absent", {}, {}, timing.regrant_ms(), {}});
    list.push_back({"confirm-down", "ok", {}, {}, timing.regrant_ms(), {}});
    return list;
}

// Whether some volume here wants a connection to that node's replica: a link is known only by carrying one,
// and StandAlone volumes try none.
bool Views::connects_to(const std::string& node) const {
    return std::ranges::any_of(tables_.volumes, [&](const auto& entry) {
        const VolumeRecord& volume = entry.second.record;
        const auto seen = context_.volumes.find(volume.id);
        return seen != context_.volumes.end() && replica_on(volume, node) != nullptr &&
               seen->second.view.connection != replication::ConnectionState::standalone;
    });
}

NodeView Views::node(const NodeRecord& record) const {
    NodeView view;
    view.name = record.name;
    view.id = record.id.to_string();
    view.state = node_state(record);
    view.roles = {"compute", "storage"};
    const bool coordinator = tables_.coordinator && tables_.coordinator->record.node == record.name;
    if (coordinator) view.roles.push_back("coordinator");
    context_.each_voter(
        [&](const VoterRecord& voter) { view.voter = view.voter || voter.name == record.name; });
    view.drained = record.drained;
    view.incarnation = record.incarnation.to_string();
    if (record.name == context_.config.name) view.standing = node_.standing.holds();
    if (!record.version.empty()) view.version = record.version;
    view.addresses.push_back(record.control);
    const auto* peer = node_.peers.find(record.name);
    const auto session = context_.sessions.find(record.name);
    if (peer != nullptr) {
        const auto path = peer->paths.find("control");
        const bool up = path != peer->paths.end() && context_.now - path->second.at <= context_.suspicion();
        view.links.push_back(
            {"control", record.control, peer->heard_ever ? (up ? "up" : "down") : "unknown"});
    }
    for (const auto& [name, address] : record.links) {
        view.addresses.push_back(address);
        if (session == context_.sessions.end()) {
            if (peer != nullptr) view.links.push_back({name, address, "unknown"});
            continue;
        }
        const auto& links = session->second.links;
        const bool up = session->second.up && std::find(links.begin(), links.end(), name) != links.end();
        const bool tried = session->second.up || connects_to(record.name);
        view.links.push_back({name, address, up ? "up" : tried ? "down" : "unknown"});
    }
    view.rungs = rungs(record);
    for (const auto& rung : view.rungs)
        view.is_protected = view.is_protected || (rung.kind == "fence-device" && rung.state == "ok");
    if (record.memory_bytes != 0) view.memory_total_bytes = record.memory_bytes;
    const HostResources& known = node_.peers.resources_of(record.name);
    if (known.known) view.memory_free_bytes = known.memory_free_bytes;
    for (const auto& [key, row] : tables_.pools) {
        if (row.record.node != record.name) continue;
        PoolView pool{row.record.name, {}, {}};
        if (row.record.total_bytes != 0) pool.total_bytes = row.record.total_bytes;
        const auto free = known.pool_free_bytes.find(row.record.name);
        if (free != known.pool_free_bytes.end()) pool.free_bytes = free->second;
        view.pools.push_back(pool);
    }
    return view;
}

std::string Views::volume_state(const VolumeRecord& record) const {
    const auto acks = ack_set(record);
    if (acks.empty()) {
        for (const auto& [id, row] : tables_.operations) {
            if (row.record.object == "volume/" + record.name && row.record.state == OperationState::running) {
                return row.record.kind == "volume.create" ? "creating" : "deleting";
            }
        }
        return "unavailable";
    }
    if (const auto* seen = facts(record)) {
        using replication::ConnectionState;
        using replication::FreezeReason;
        if (seen->view.connection == ConnectionState::standalone) return "split-brain";
        if (seen->view.role == replication::Role::primary && seen->view.frozen != FreezeReason::none &&
            seen->view.frozen != FreezeReason::not_primary) {
            return "frozen";
        }
        if (seen->view.sync != replication::SyncState::off) return "resync";
    }
    const bool reachable =
        std::any_of(acks.begin(), acks.end(), [this](const auto& name) { return alive(name); });
    if (!reachable) return "unavailable";
    return acks.size() < record.replicas.size() ? "degraded" : "ok";
}

VolumeView Views::volume(const Row<VolumeRecord>& row) const {
    const VolumeRecord& record = row.record;
    VolumeView view;
    view.name = record.name;
    view.id = record.id.to_string();
    view.size_bytes = record.size_bytes;
    view.pool = record.replicas[0].pool;
    view.ack_mode = std::string(to_string(record.ack_mode));
    view.state = volume_state(record);
    view.generation = record.generation.counter;
    view.revision = row.revision;
    view.ack_set = ack_set(record);
    const auto* seen = facts(record);
    if (record.owner) {
        OwnerView owner{record.owner->node, record.owner->epoch, "unknown", record.owner->purpose};
        if (record.owner->revoking) {
            owner.lease = "revoking";
        } else if (record.owner->node == context_.config.name && seen != nullptr) {
            owner.lease = seen->view.lease_until > context_.now ? "held" : "lapsed";
        }
        view.owner = owner;
        if (record.owner->purpose == "export")
            view.exported = ExportView{owner.node, owner.epoch, record.owner->secret, false};
    }
    for (const auto& replica : record.replicas) {
        ReplicaView one{replica.node, std::string(to_string(replica.state)), "Unknown", "Unknown", {}, {}};
        if (!alive(replica.node) && replica.state == ReplicaState::up_to_date && !replica.in_ack_set)
            one.disk = "Unknown";
        const bool primary = record.owner && record.owner->node == replica.node;
        if (alive(replica.node)) one.role = primary ? "Primary" : "Secondary";
        if (replica.node == context_.config.name && seen != nullptr) {
            using replication::ConnectionState;
            using replication::SyncState;
            one.role = seen->view.role == replication::Role::primary ? "Primary" : "Secondary";
            one.connection = seen->view.connection == ConnectionState::connected    ? "Connected"
                             : seen->view.connection == ConnectionState::standalone ? "StandAlone"
                                                                                    : "Connecting";
            if (seen->view.sync != SyncState::off) {
                one.connection = seen->view.sync == SyncState::sync_source ? "SyncSource" : "SyncTarget";
                one.resync_done_bytes = seen->view.resync_done_bytes;
                one.resync_total_bytes = seen->view.resync_total_bytes;
            }
        }
        view.replicas.push_back(one);
    }
    for (const auto& [name, guest] : tables_.guests) {
        for (const auto& disk : guest.record.disks) {
            if (disk.volume == record.name) view.vm = name;
        }
    }
    return view;
}

std::string Views::guest_why(const GuestRecord& record) const {
    const auto blocked = context_.blocked.find("vm/" + record.name);
    if (!record.placement && record.wish == GuestWish::running && blocked != context_.blocked.end())
        return blocked->second.why;
    return record.last_error;
}

GuestView Views::guest(const GuestRecord& record) const {
    GuestView view;
    view.name = record.name;
    view.uuid = record.uuid.to_string();
    view.desired = std::string(to_string(record.wish));
    view.template_text = record.template_text;
    view.memory_bytes = record.memory_bytes;
    view.vcpus = record.vcpus;
    view.disks = record.disks;
    view.nics = record.nics;
    view.priority = record.priority;
    view.restarts = record.restarts;
    view.migration = record.migration;
    if (!record.preferred_node.empty()) view.preferred_node = record.preferred_node;
    view.state = "shut off";
    if (record.placement) {
        view.node = record.placement->node;
        const bool lost = !alive(record.placement->node);
        view.state = lost                                              ? "unknown"
                     : record.placement->phase == GuestPhase::running  ? "running"
                     : record.placement->phase == GuestPhase::stopping ? "in shutdown"
                                                                       : "no state";
        if (record.placement->node == context_.config.name && context_.domains_known) {
            const auto seen = context_.domains.find(record.uuid);
            if (seen != context_.domains.end()) {
                view.type = seen->second.kind;
                if (seen->second.state == DomainState::paused) view.state = "paused";
                if (seen->second.state == DomainState::crashed) view.state = "crashed";
            }
        }
        if (lost) view.phase = "recovering";
        if (!lost && record.placement->phase == GuestPhase::starting) view.phase = "starting";
        if (!lost && record.placement->phase == GuestPhase::stopping) view.phase = "stopping";
    } else if (record.wish == GuestWish::running) {
        const auto blocked = context_.blocked.find("vm/" + record.name);
        const bool for_good = record.restarts >= GuestRecord::kMaxRestarts ||
                              (blocked != context_.blocked.end() && blocked->second.until_operator);
        view.phase = for_good ? "blocked" : "waiting";
    }
    if (const auto why = guest_why(record); !why.empty()) view.why = why;
    if (view.state == "paused" && !view.why)
        view.why = "its lease is not fresh, or it was paused by hand; 'gemel explain vm " + record.name + "'";
    return view;
}

std::vector<FenceDeviceView> Views::fence_devices() const {
    std::vector<FenceDeviceView> list;
    for (const auto& [name, row] : tables_.fence_devices) {
        FenceDeviceView view{row.record, "untested", {}, {}, {}};
        if (const auto test = context_.fence_tests.find(name); test != context_.fence_tests.end()) {
            view.state = test->second.ok ? "ok" : "failing";
            view.power = !test->second.ok ? "unknown" : test->second.power_off ? "off" : "on";
            view.tested_wall_ms = test->second.wall_ms;
            view.detail = test->second.detail;
        }
        list.push_back(std::move(view));
    }
    return list;
}

std::vector<OperationRecord> Views::operations() const {
    std::vector<std::pair<std::uint64_t, OperationRecord>> rows;
    for (const auto& [id, record] : node_.operations.in_memory()) rows.push_back({~std::uint64_t{0}, record});
    for (const auto& [id, row] : tables_.operations) rows.push_back({row.created, row.record});
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<OperationRecord> list;
    for (auto& [created, record] : rows) list.push_back(std::move(record));
    return list;
}

StatusView Views::status() const {
    StatusView view;
    view.cluster_name = tables_.cluster ? tables_.cluster->record.name : context_.config.cluster_name;
    view.cluster_id = (tables_.cluster ? tables_.cluster->record.id : context_.config.cluster).to_string();
    view.node = context_.config.name;
    view.stale = !context_.store_quorate() || !context_.tables_live;
    view.store = store();
    const auto voters = tables_.cluster ? tables_.cluster->record.voters : context_.config.initial_voters;
    const bool witness = std::any_of(voters.begin(), voters.end(), [](const auto& v) { return v.witness; });
    const std::size_t nodes = std::max(tables_.nodes.size(), context_.config.peers.size() + 1);
    view.mode = nodes < 2 ? "one-node" : witness ? "two-nodes-witness" : "two-nodes";
    if (tables_.coordinator) {
        view.coordinator = tables_.coordinator->record.node;
        view.term = tables_.coordinator->created;
    }
    for (const auto& [name, row] : tables_.nodes) view.nodes.push_back(node(row.record));
    for (const auto& [name, row] : tables_.volumes) view.volumes.push_back(volume(row));
    for (const auto& [name, row] : tables_.guests) view.guests.push_back(guest(row.record));
    for (auto& operation : operations()) {
        const bool open =
            operation.state == OperationState::running || operation.state == OperationState::pending;
        if (open) view.operations.push_back(std::move(operation));
    }
    view.problems = problems();
    return view;
}

// ---- ClusterNode's reading side
// ------------------------------------------------------------------------------------

StatusView ClusterNode::status() const {
    return Views(*impl_).status();
}
Result<ExplainView> ClusterNode::explain(const std::string& kind, const std::string& name) const {
    return Views(*impl_).explain(kind, name);
}
Result<PlanView> ClusterNode::plan_of(const std::string& action, const std::string& object,
                                      const std::string& node, bool with_volumes) const {
    return Views(*impl_).plan(action, object, node, with_volumes);
}
std::vector<FenceDeviceView> ClusterNode::fence_devices() const {
    return Views(*impl_).fence_devices();
}
std::vector<EventView> ClusterNode::events(std::uint64_t after, std::size_t limit) const {
    return list_events(impl_->context.latest, after, limit);
}
std::vector<OperationRecord> ClusterNode::operations() const {
    return Views(*impl_).operations();
}
Result<OperationRecord> ClusterNode::operation(const OperationId& id) const {
    for (auto& operation : Views(*impl_).operations()) {
        if (operation.id == id) return operation;
    }
    return fail(ErrorCode::not_found,
                "there is no operation " + id.to_string() + "; it may be long finished");
}

}  // namespace gemel::cluster
