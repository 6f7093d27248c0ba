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
    husk_ = frozen_ = existed_ = shutting_down_ = false;
    fed_ = true;
    seen_ = ha::GuardState::allowed;
    armed_ = Instant::never();
    ++life_;
}

void GuestHost::lost() {
    guard_.reset();
    husk_ = frozen_ = existed_ = shutting_down_ = false;
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
    if (existed_ != exists()) {
        existed_ = exists();
        if (changed) changed();
    }
    if (!guarded_.is_nil()) {
        const auto seen = !exists() ? ha::SeenDomain::gone
                          : frozen_ ? ha::SeenDomain::paused
                                    : ha::SeenDomain::running;
        guard(ha::DomainSeen{guarded_, seen});
    }
}

// ---- libvirt
// ----------------------------------------------------------------------------------------------------

bool GuestHost::exists() const {
    return husk_ || mine();
}

bool GuestHost::vcpus_run() const {
    return exists() && !frozen_ && parts_.world.host(node_).up();
}

cluster::DomainState GuestHost::state() const {
    return shutting_down_ ? cluster::DomainState::shutting_down : cluster::DomainState::running;
}

void GuestHost::check_twice() const {
    if (other_ == nullptr) return;
    const std::string breach = SingleGuestChecker::runs(vcpus_run(), other_->vcpus_run());
    if (breach.empty()) return;
    if (parts_.lied_about(0) || parts_.lied_about(1)) {
        parts_.counters.add("site.runs_twice_after_a_lie");
        return;
    }
    throw Violation("C1", breach);
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
    if (other_->exists()) {
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
    }
    epoch_ = epoch;
    frozen_ = shutting_down_ = false;
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
    if (mine()) parts_.guest.kill();
    husk_ = frozen_ = shutting_down_ = false;
    poll();
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
    if (mine()) parts_.guest.set_vcpus(!frozen_ && parts_.world.host(node_).up());
    check_twice();
}

// ---- guard
// ------------------------------------------------------------------------------------------------------

void GuestHost::guard(const ha::GuardInput& input) {
    if (guard_ == nullptr) return;
    if (const auto* add = std::get_if<ha::Register>(&input)) guarded_ = add->guest;
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
