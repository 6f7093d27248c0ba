#include "sim/world/operator.hpp"

#include <utility>

#include "sim/world/control.hpp"

namespace gemel::sim {

using namespace cluster;  // NOLINT: he speaks the control plane's words

namespace {
constexpr std::uint32_t kFenceTimeoutMs = 6000;
}  // namespace

std::optional<std::uint32_t> Operator::somebody() {
    const auto first = static_cast<std::uint32_t>(random_.below(2));
    for (const std::uint32_t node : {first, 1 - first})
        if (port_.takes_orders(node)) return node;
    return std::nullopt;
}

void Operator::ask(ApiCommand command) {
    if (const auto node = somebody()) ask(*node, std::move(command));
}

void Operator::ask(std::uint32_t to, ApiCommand command) {
    ApiRequest request{next_tag_++, OperationId::from_random(random_.next(), random_.next()),
                       std::move(command)};
    trace_.note_text(tasks_.now(), to, "operator.asks", kind_of(request.command));
    not_before_ = tasks_.now() + milliseconds(1500);
    port_.order(to, request);
}

void Operator::answered(const ApiAnswer& answer) {
    if (!answer.operation) {
        trace_.note_text(tasks_.now(), kWorld, "operator.refused", answer.operation.error().message);
        counters_.add("operator.refused");
    } else {
        counters_.add("operator.accepted");
    }
    if (!made_) not_before_ = tasks_.now() + milliseconds(100);
}

void Operator::tick() {
    tasks_.after(milliseconds(200), [this] { tick(); });
    if (tasks_.now() < not_before_ || (made_ && obeys_ && !careful_ && !asked_something())) return;
    made_ ? look_after() : make();
}

void Operator::make() {
    const Tables& tables = port_.truth();
    if (tables.nodes.size() < 2) return;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::string name = std::string("bmc-") + kNodeNames[node];
        if (tables.fence_devices.contains(name)) continue;
        FenceDeviceRecord device;
        device.name = name;
        device.node = kNodeNames[node];
        device.agent = "fence_ipmilan";
        device.timeout_ms = kFenceTimeoutMs;
        return ask(FenceSet{device});
    }
    const auto volume = tables.volumes.find(kName);
    if (volume == tables.volumes.end()) {
        VolumeCreate create;
        create.name = kName;
        create.size_bytes = size_bytes_;
        create.ack_mode = ack_mode_;
        return ask(create);
    }
    for (const auto& replica : volume->second.record.replicas)
        if (!replica.in_ack_set) return;
    const auto guest = tables.guests.find(kName);
    if (guest == tables.guests.end()) {
        GuestCreate create;
        create.name = kName;
        create.memory_bytes = std::uint64_t{1} << 30;
        create.vcpus = 1;
        create.disks = {{"vda", kName}};
        return ask(create);
    }
    if (guest->second.record.wish == GuestWish::stopped) return ask(GuestStart{kName, ""});
    made_ = true;
}

void Operator::move_guest(const GuestRecord& guest) {
    if (handover_ && !moving_) {
        handover_ = false;
        if (!guest.placement || guest.wish != GuestWish::running) return;
        move_to_ = guest.placement->node == kNodeNames[0] ? kNodeNames[1] : kNodeNames[0];
        moving_ = true;
        counters_.add("operator.moves_guest");
    }
    if (!moving_) return;
    if (guest.wish == GuestWish::running && guest.placement) {
        if (guest.placement->node != move_to_)
            return ask(GuestStop{kName, pull_plug_ || random_.chance(1, 2), 20000});
        moving_ = false;  // a failover was faster
    }
    if (guest.wish == GuestWish::stopped && !guest.placement) {
        moving_ = false;
        ask(GuestStart{kName, random_.chance(3, 4) ? move_to_ : ""});
    } else if (guest.wish == GuestWish::running && !guest.placement) {
        moving_ = false;
    }
}

// true: he has asked for something
bool Operator::migrate(const Tables& tables, const GuestRecord& guest) {
    if (std::exchange(cancel_, false) && guest.migration) {
        counters_.add("operator.cancels");
        ask(GuestMigrateCancel{kName});
        return true;
    }
    for (const auto& [name, row] : tables.nodes) {
        if (!row.record.drained) continue;
        if (undrain_at_ == Instant::never())
            undrain_at_ = tasks_.now() + milliseconds(random_.between(3000, 20'000));
        if (!careful_ && tasks_.now() < undrain_at_) return false;
        counters_.add("operator.undrains");
        ask(NodeUndrain{name});
        return true;
    }
    undrain_at_ = Instant::never();
    if (!migrate_ || tasks_.now() > migrate_until_ || careful_) {
        migrate_ = false;
        return false;
    }
    const bool ready = guest.placement && guest.placement->phase == GuestPhase::running && !guest.migration &&
                       guest.wish == GuestWish::running;
    if (!ready || !somebody()) return false;
    migrate_ = false;
    counters_.add(drain_ ? "operator.drains" : "operator.migrates");
    GuestMigrate move;
    move.name = kName;
    drain_ ? ask(NodeDrain{guest.placement->node}) : ask(move);
    return true;
}

// Nobody acts for long, and only one of two voters has a store: he accepts what may be lost.
void Operator::start_alone() {
    if (somebody()) {
        stuck_since_ = Instant::never();
    } else if (stuck_since_ == Instant::never()) {
        stuck_since_ = tasks_.now();
    }
    if (stuck_since_ == Instant::never() || tasks_.now() - stuck_since_ < seconds(20)) return;
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (!port_.has_store(node) || port_.has_store(1 - node) || port_.clusterd(node) == nullptr) continue;
        counters_.add("operator.starts_alone");
        ask(node, StartAlone{"sim", true});
        not_before_ = tasks_.now() + seconds(10);
    }
}

void Operator::look_after() {
    const Tables& tables = port_.truth();
    const auto row = tables.guests.find(kName);
    const auto volume = tables.volumes.find(kName);
    if (row == tables.guests.end() || volume == tables.volumes.end()) return;
    const GuestRecord& guest = row->second.record;
    if (vouched_ && tasks_.now() < vouch_until_) {
        counters_.add("operator.vouches");
        return ask(1 - *vouched_, ConfirmDown{kNodeNames[*vouched_], kNodeNames[*vouched_]});
    }
    if (careful_) start_alone();
    if (migrate(tables, guest)) return;
    if (replace_) {
        const auto node = *std::exchange(replace_, std::nullopt);
        counters_.add("operator.replaces_replica");
        return ask(VolumeResolve{kName, kNodeNames[1 - node], kName});
    }
    // Its own disk failed under it: it stands still until it is moved to the other replica.
    const auto& record = volume->second.record;
    pull_plug_ = false;
    for (const auto& replica : record.replicas)
        pull_plug_ =
            pull_plug_ || (record.owner && replica.node == record.owner->node && !replica.in_ack_set);
    if (pull_plug_ && guest.placement && !moving_ && (careful_ || random_.chance(1, 20))) handover_ = true;
    if (handover_ || moving_) return move_guest(guest);
    const bool gave_up =
        guest.wish == GuestWish::running && !guest.placement &&
        (guest.restarts >= GuestRecord::kMaxRestarts || guest.host_losses >= GuestRecord::kMaxHostLosses);
    if (gave_up) counters_.add("site.out_of_restarts");
    // Stopped by a stop whose second half was forgotten, or given up: by hand again.
    if ((gave_up && (careful_ || random_.chance(1, 20))) || guest.wish == GuestWish::stopped)
        ask(GuestStart{kName, ""});
}

}  // namespace gemel::sim
