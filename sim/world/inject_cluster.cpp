// Faults that concern the control plane as a whole: partitions that leave the fence devices reachable, power
// cuts at the very moment of a commit, long partitions with an operator who believes what he should not,
// devices that lie, store directories from old images, guests that kill their hosts.
#include <array>
#include <utility>

#include <fmt/format.h>

#include "sim/world/world.hpp"

// each group of faults handles its own and leaves the rest to the others
#pragma GCC diagnostic ignored "-Wswitch-enum"

namespace gemel::sim {

void World::cut_between(bool with_management, bool cut) {
    for (const Cable cable : {Cable::control, Cable::link1, Cable::link2, Cable::management}) {
        if (cable == Cable::management && !with_management) continue;
        network_.direction(cable, 0, 1).cut = cut;
        network_.direction(cable, 1, 0).cut = cut;
    }
    network_.changed();
}

// The owner and the other one part for long; the operator tells the other one that the owner is off (he is
// wrong: the bound must hold). In the end the one that went on may lose its power just when the other is
// heard again (H36).
void World::part_for_long() {
    const std::uint32_t owner = owner_or_random();
    const Duration length = milliseconds(random_.between(30'000, 75'000));
    const bool betrayed = random_.chance(1, 2);
    cut_between(true, true);
    control_->vouch_for_off(owner, queue_.now() + length);
    tasks_.after(length, [this, owner, betrayed] {
        if (healing_) return;
        if (betrayed && hosts_[1 - owner].powered) {
            power_off(1 - owner);
            tasks_.after(milliseconds(random_.between(10'000, 30'000)),
                         [this, other = 1 - owner] { power_on(other); });
        }
        cut_between(true, false);
    });
}

void World::guest_began(std::uint32_t node) {
    if (!poisoned_ || healing_) return;
    tasks_.after(milliseconds(random_.between(300, 3000)), [this, node, life = hosts_[node].incarnation] {
        if (!poisoned_ || healing_ || hosts_[node].incarnation != life || !hosts_[node].powered) return;
        counters_.add("site.poisoned");
        power_off(node);
        tasks_.after(milliseconds(random_.between(500, 4000)), [this, node] { power_on(node); });
    });
}

void World::committed_anew() {
    if (!std::exchange(cut_at_commit_, false) || healing_) return;
    tasks_.after(microseconds(random_.between(0, 60'000)), [this] {
        const std::uint32_t owner = owner_or_random();
        if (healing_ || !hosts_[owner].powered) return;
        counters_.add("site.cut_at_commit");
        power_off(owner);
        tasks_.after(outage() + milliseconds(random_.between(0, 9000)), [this, owner] { power_on(owner); });
    });
}

// A step of a move begins; what was to fail then fails now, or a little later.
void World::move_stepped(std::uint32_t step) {
    if (break_at_ != step || healing_) return;
    break_at_.reset();
    const bool at_once = random_.chance(1, 2);
    tasks_.after(microseconds(at_once ? random_.between(0, 20'000) : random_.between(0, 1'500'000)),
                 [this, step] {
                     if (healing_) return;
                     constexpr std::array kBreaks = {Fault::power_cut_owner,
                                                     Fault::power_cut_peer,
                                                     Fault::power_cut,
                                                     Fault::reboot_fast,
                                                     Fault::crash_blockd,
                                                     Fault::crash_both_blockd,
                                                     Fault::clusterd_crash,
                                                     Fault::clusterd_crash,
                                                     Fault::clusterd_crash,
                                                     Fault::pause_short,
                                                     Fault::pause_long,
                                                     Fault::cut_links,
                                                     Fault::cut_control,
                                                     Fault::cut_between_nodes,
                                                     Fault::cut_everything_between,
                                                     Fault::reset_session,
                                                     Fault::store_trouble,
                                                     Fault::guest_crash,
                                                     Fault::handover,
                                                     Fault::slow_disk,
                                                     Fault::dead_disk,
                                                     Fault::leave_and_return,
                                                     Fault::count};
                     const Fault fault = kBreaks[random_.below(kBreaks.size())];
                     counters_.add(fmt::format("migration.broken_at_{}", step));
                     if (fault == Fault::count) return control_->ask_cancel();
                     inject(fault, static_cast<std::uint32_t>(random_.below(2)));
                 });
}

bool World::inject_cluster_fault(Fault fault, std::uint32_t node) {
    switch (fault) {
        case Fault::cut_between_nodes:
            cut_between(false, true);
            tasks_.after(outage() + milliseconds(random_.between(0, 8000)),
                         [this] { cut_between(false, false); });
            return true;
        case Fault::long_partition: part_for_long(); return true;
        case Fault::power_cut_at_commit:
            cut_at_commit_ = true;
            control_->set_late_commits(true);
            network_.cut_both_ways(Cable::link1, 0, 1, true);
            network_.cut_both_ways(Cable::link2, 0, 1, true);
            tasks_.after(milliseconds(random_.between(2500, 9000)), [this] {
                control_->set_late_commits(false);
                network_.cut_both_ways(Cable::link1, 0, 1, false);
                network_.cut_both_ways(Cable::link2, 0, 1, false);
            });
            return true;
        case Fault::migrate: return control_->ask_migration(random_.chance(1, 6));
        case Fault::migrate_and_break:
            if (!control_->ask_migration(random_.chance(1, 6))) return false;
            break_at_ = static_cast<std::uint32_t>(random_.between(1, 4));
            return true;
        case Fault::fence_lies:
            // With two voters a lie lets both force: that is split brain, declared, and the operator's.
            if (voters_ == Voters::two) return false;
            fence_moods_[node] = FenceMood::lies;
            tasks_.after(outage() + seconds(8), [this, node] { fence_moods_[node] = FenceMood::works; });
            return true;
        case Fault::fence_slow:
            fence_moods_[0] = fence_moods_[1] = FenceMood::slow;
            tasks_.after(seconds(30), [this] { fence_moods_[0] = fence_moods_[1] = FenceMood::works; });
            return true;
        case Fault::poison_guest:
            poisoned_ = true;
            if (guest_->alive()) end_guest(guest_->node());
            tasks_.after(seconds(random_.between(30, 90)), [this] { poisoned_ = false; });
            return true;
        case Fault::store_image:
            if (!hosts_[node].up()) return false;
            control_->take_store_image(node);
            tasks_.after(milliseconds(random_.between(5000, 20'000)), [this, node] {
                if (healing_ || !hosts_[node].powered) return;
                power_off(node);
                tasks_.after(milliseconds(random_.between(500, 3000)), [this, node] {
                    power_on(node);  // once more, so that the nonce is another than the image's
                    tasks_.after(milliseconds(random_.between(9000, 14'000)), [this, node] {
                        if (healing_ || !hosts_[node].powered) return;
                        power_off(node);
                        tasks_.after(milliseconds(300), [this, node] {
                            control_->restore_store_image(node);
                            power_on(node);
                        });
                    });
                });
            });
            return true;
        default: return false;
    }
}

}  // namespace gemel::sim
