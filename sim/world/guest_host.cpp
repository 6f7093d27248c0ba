#include "sim/world/guest_host.hpp"

#include <utility>

#include <fmt/format.h>

#include "sim/checkers/single_guest.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

constexpr Duration kWatchdog = seconds(15);

ha::GuardConfig guard_config() {
    return ha::GuardConfig{};
}

}  // namespace

Instant GuestHost::local() const {
    return parts_.world.host(node_).clock.local(parts_.tasks.now());
}

// ---- the host's life
// ---------------------------------------------------------------------------------------------

void GuestHost::boot() {
    guard_ = std::make_unique<ha::Guard>(guard_config());
    husk_ = twin_ = incoming_ = stopped_ = frozen_ = existed_ = shutting_down_ = false;
    fed_ = true;
    seen_ = ha::GuardState::allowed;
    armed_ = Instant::never();
    ++life_;
}

void GuestHost::lost() {
    guard_.reset();
    husk_ = twin_ = incoming_ = stopped_ = frozen_ = existed_ = shutting_down_ = false;
    ++life_;
}

void GuestHost::resumed() {
    if (guard_ == nullptr) return;
    resumed_at_ = parts_.tasks.now();
    poll();
    apply_vcpus();
}

void GuestHost::poll() {
    if (guard_ == nullptr || parts_.world.host(node_).paused) return;
    check_right();
    check_twice_for_long();
    if (existed_ != exists()) {
        existed_ = exists();
        if (changed) changed();
    }
    if (!guarded_.is_nil()) {
        const auto seen = !exists()                          ? ha::SeenDomain::gone
                          : frozen_ || stopped_ || incoming_ ? ha::SeenDomain::paused
                                                             : ha::SeenDomain::running;
        guard(ha::DomainSeen{guarded_, seen});
    }
}

// ---- libvirt
// ----------------------------------------------------------------------------------------------------

bool GuestHost::exists() const {
    return husk_ || incoming_ || mine();
}

bool GuestHost::vcpus_run() const {
    return exists() && !frozen_ && !stopped_ && !incoming_ && parts_.world.host(node_).up();
}

cluster::DomainState GuestHost::state() const {
    if (frozen_ || stopped_ || incoming_) return cluster::DomainState::paused;
    return shutting_down_ ? cluster::DomainState::shutting_down : cluster::DomainState::running;
}

// After a move libvirt may have resumed both: for a stated time, and one of them without a disk.
void GuestHost::check_twice() {
    if (other_ == nullptr) return;
    const std::string breach = SingleGuestChecker::runs(vcpus_run(), other_->vcpus_run());
    if (breach.empty()) {
        twice_since_ = other_->twice_since_ = Instant::never();
        return;
    }
    if (parts_.lied_about(0) || parts_.lied_about(1)) {
        parts_.counters.add("site.runs_twice_after_a_lie");
        return;
    }
    if (!twin_ && !other_->twin_) throw Violation("C1", breach);
    if (twice_since_ == Instant::never()) twice_since_ = other_->twice_since_ = parts_.tasks.now();
}

// Counted from when the destination's guard knew of it, or its clusterd could have known.
void GuestHost::check_twice_for_long() {
    check_twice();
    if (twice_since_ == Instant::never() || twin_) return;
    const bool known = guarded_epoch_ == epoch_ || (parts_.acts(node_) && !parts_.world.host(node_).paused);
    if (!known) twice_since_ = parts_.tasks.now();
    const std::string breach =
        SingleGuestChecker::runs_for_long(parts_.tasks.now() - std::max(twice_since_, resumed_at_));
    if (!breach.empty()) throw Violation("C1", breach);
}

// Frozen within a stated time of its lease's end (promises C1, C2).
void GuestHost::check_right() const {
    if (!vcpus_run() || lease_epoch_ != epoch_) return;
    const std::string breach =
        SingleGuestChecker::right({node_, local(), lease_until_, parts_.tasks.now(), resumed_at_});
    if (!breach.empty()) throw Violation("C2", breach);
}

std::string GuestHost::start(std::uint64_t epoch) {
    if (exists()) return "a domain of this UUID exists here";
    if (!parts_.world.host(node_).up()) return "the host does not run";
    if (other_->husk_ || other_->mine()) {
        if (parts_.lied_about(1 - node_)) {
            parts_.counters.add("site.started_after_a_lie");
        } else if (const auto breach = SingleGuestChecker::starts(node_, other_->vcpus_run());
                   !breach.empty()) {
            throw Violation("C1", breach);
        } else {
            parts_.counters.add("site.started_beside_frozen");
        }
        parts_.guest.kill();
        other_->husk_ = true;
        other_->twin_ = false;
    }
    epoch_ = epoch;
    frozen_ = stopped_ = shutting_down_ = false;
    ++starts_;
    parts_.counters.add("guest.started");
    parts_.guest.start(node_, epoch);
    parts_.guest.front_opened(parts_.world.block(node_));
    check_twice();
    poll();
    return {};
}

void GuestHost::end(const char* why) {
    if (!exists()) return;
    parts_.counters.add(fmt::format("domain.{}", why));
    if (mine()) leave();
    husk_ = twin_ = incoming_ = stopped_ = frozen_ = shutting_down_ = false;
    poll();
}

// A copy that was told nothing by its disk was never the guest: it goes on where it was stopped.
void GuestHost::leave() {
    const bool back = other_->twin_ && parts_.guest.completions() == completions_;
    if (!back) {
        parts_.guest.kill();
        other_->twin_ = false;
        return;
    }
    parts_.counters.add("site.goes_on_at_source");
    other_->husk_ = other_->twin_ = false;
    BlockNode& block = parts_.world.block(other_->node_);
    parts_.guest.go_on(other_->node_, other_->epoch_,
                       block.served_epoch() == other_->epoch_ ? &block : nullptr);
    other_->apply_vcpus();
}

void GuestHost::vanish() {
    if (mine()) leave();
}

// ---- a move
// -----------------------------------------------------------------------------------------------------

void GuestHost::tell() {
    existed_ = exists();
    if (changed) changed();
}

bool GuestHost::receive(std::uint64_t epoch) {
    if (exists()) return false;
    incoming_ = true;
    epoch_ = epoch;
    guarded_epoch_ = 0;
    frozen_ = stopped_ = shutting_down_ = false;
    ++starts_;
    tell();
    return true;
}

void GuestHost::drop_incoming() {
    if (!std::exchange(incoming_, false)) return;
    tell();
}

// Its state is here, and its vCPUs run on: the source's domain keeps the memory of the moment it was stopped.
void GuestHost::arrive() {
    incoming_ = false;
    other_->husk_ = other_->twin_ = true;
    husk_ = twin_ = false;
    completions_ = parts_.guest.completions();
    BlockNode& block = parts_.world.block(node_);
    parts_.guest.go_on(node_, epoch_, block.served_epoch() == epoch_ ? &block : nullptr);
    apply_vcpus();
    tell();
}

void GuestHost::stop_for_move() {
    stopped_ = true;
    apply_vcpus();
    tell();
}

void GuestHost::resume_after_move() {
    if (!exists() || !std::exchange(stopped_, false)) return;
    apply_vcpus();
    tell();
}

void GuestHost::leave_after_move() {
    end("moved_away");
}

void GuestHost::destroy() {
    end("destroyed");
}

void GuestHost::shut_down() {
    if (!exists() || shutting_down_) return;
    shutting_down_ = true;
    parts_.tasks.after(milliseconds(random_.between(200, 3000)), [this, life = life_, start = starts_] {
        // a guest that is frozen does not follow the button
        if (life != life_ || start != starts_ || !vcpus_run()) return;
        end("shut_down");
    });
}

void GuestHost::apply_vcpus() {
    if (mine()) parts_.guest.set_vcpus(vcpus_run());
    check_twice();
}

// ---- guard
// ------------------------------------------------------------------------------------------------------

void GuestHost::guard(const ha::GuardInput& input) {
    if (guard_ == nullptr) return;
    if (const auto* add = std::get_if<ha::Register>(&input)) {
        guarded_ = add->guest;
        guarded_epoch_ = add->volumes.empty() ? 0 : add->volumes.front().epoch;
    }
    if (const auto* lease = std::get_if<ha::LeaseUntil>(&input)) {
        if (lease->epoch != lease_epoch_) lease_until_ = Instant{};
        lease_epoch_ = lease->epoch;
        lease_until_ = std::max(lease_until_, lease->until);
    }
    ha::GuardOutputs outputs;
    guard_->step(local(), input, outputs);
    for (const auto& output : outputs) act(output);
    for (const auto& view : guard_->view()) {
        if (view.guest != guarded_ || view.state == seen_) continue;
        seen_ = view.state;
        parts_.counters.add(fmt::format("guard.state_{}", to_string(view.state)));
    }
    arm();
}

void GuestHost::arm() {
    const Instant next = guard_->next_deadline();
    if (next == Instant::never()) return;
    const Instant real = parts_.world.host(node_).clock.real(next);
    if (armed_ <= real && armed_ > parts_.tasks.now()) return;
    armed_ = std::max(real, parts_.tasks.now() + milliseconds(10));
    parts_.tasks.at(armed_, [this, life = life_, at = armed_] {
        if (life != life_ || at != armed_) return;
        armed_ = Instant::never();
        if (!parts_.world.host(node_).paused) guard(ha::GuardTick{});
    });
}

void GuestHost::act(const ha::GuardOutput& output) {
    if (std::holds_alternative<ha::FreezeDomain>(output)) {
        if (!exists()) return;
        parts_.counters.add("guard.paused");
        frozen_ = true;
        apply_vcpus();
    } else if (std::holds_alternative<ha::ThawDomain>(output)) {
        if (!exists()) return;
        parts_.counters.add("guard.resumed");
        frozen_ = false;
        apply_vcpus();
    } else if (const auto* kill = std::get_if<ha::KillDomain>(&output)) {
        if (!exists()) return;
        parts_.counters.add("guard.killed");
        parts_.trace.note_text(parts_.tasks.now(), node_, "guard.kill", kill->reason);
        parts_.tasks.after(milliseconds(random_.between(0, 5)), [this, life = life_, start = starts_] {
            if (life == life_ && start == starts_) end("killed_by_guard");
        });
    } else if (const auto* feed = std::get_if<ha::FeedWatchdog>(&output)) {
        fed_ = feed->feed;
        if (fed_) return;
        parts_.counters.add("guard.stopped_feeding");
        parts_.tasks.after(kWatchdog, [this, life = life_, feeding = ++feedings_] {
            if (life != life_ || fed_ || feeding != feedings_) return;
            parts_.world.power_off(node_);
            parts_.tasks.after(milliseconds(100), [this] { parts_.world.power_on(node_); });
        });
    }
}

}  // namespace gemel::sim
