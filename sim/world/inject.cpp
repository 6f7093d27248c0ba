// The fault injector: part of World. What each fault does, and when the next one comes.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "sim/world/world.hpp"

// each group of faults handles its own and leaves the rest to the others
#pragma GCC diagnostic ignored "-Wswitch-enum"

namespace gemel::sim {

void World::schedule_faults() {
    // as often in the middle of the last one's repair as long after it
    const std::uint64_t scale = random_.below(4);
    const std::int64_t micros = scale == 0   ? random_.between(100, 20'000)
                                : scale == 1 ? random_.between(10'000, 500'000)
                                : scale == 2 ? random_.between(300'000, 4'000'000)
                                             : random_.between(2'000'000, 15'000'000);
    const Duration wait =
        faults_injected_ == 0 ? milliseconds(random_.between(4000, 9000)) : microseconds(micros);
    tasks_.after(wait, [this] {
        if (healing_) return;
        if (queue_.now() < quiet_until_) return schedule_faults();
        const Fault fault = plan_.kinds[random_.below(plan_.kinds.size())];
        inject(fault, static_cast<std::uint32_t>(random_.below(2)));
        schedule_faults();
    });
}

// How long something stays broken: often just around the times at which somebody gives up.
Duration World::outage() {
    switch (random_.below(4)) {
        case 0: return milliseconds(random_.between(1, 300));
        case 1: return milliseconds(random_.between(1500, 2600));
        case 2: return milliseconds(random_.between(2000, 12'000));
        default: return milliseconds(random_.between(300, 1500));
    }
}

std::uint32_t World::owner_or_random() {
    if (guest_->alive()) return guest_->node();
    return static_cast<std::uint32_t>(random_.below(2));
}

void World::inject(Fault fault, std::uint32_t node) {
    const bool done = inject_host_fault(fault, node) || inject_network_fault(fault, node) ||
                      inject_disk_fault(fault, node) || inject_control_fault(fault, node) ||
                      inject_cluster_fault(fault, node);
    if (!done) return;
    ++faults_injected_;
    trace_.note_text(queue_.now(), node, "fault", name_of(fault));
    counters_.add(fmt::format("fault.{}", name_of(fault)));
    check_tracking();
}

void World::take_image(std::uint32_t node) {
    old_images_[node] = OldImage{disks_[node]->copy_of_stable(),
                                 control_->committed().record.generation.counter, replicas_[node]};
}

bool World::inject_host_fault(Fault fault, std::uint32_t node) {
    const auto cut = [this](std::uint32_t which, Duration dark) {
        if (!hosts_[which].powered) return false;
        power_off(which);
        network_.set_bmc(which, false);  // its supply is gone as well (H5)
        tasks_.after(dark, [this, which] { power_on(which); });
        return true;
    };
    switch (fault) {
        case Fault::power_cut: return cut(node, outage() + milliseconds(random_.between(0, 20'000)));
        case Fault::power_cut_owner:
            return cut(owner_or_random(), outage() + milliseconds(random_.between(0, 9000)));
        case Fault::power_cut_peer: return cut(1 - owner_or_random(), outage());
        case Fault::blackout: {
            const bool first = cut(0, outage());
            return cut(1, outage() + milliseconds(random_.between(0, 5000))) || first;
        }
        case Fault::reboot_fast: return cut(node, milliseconds(random_.between(1, 40)));
        case Fault::crash_blockd:
            if (!blocks_[node]->running() || hosts_[node].paused) return false;
            crash_blockd(node, outage());
            return true;
        case Fault::crash_both_blockd:
            if (!blocks_[0]->running() || !blocks_[1]->running() || hosts_[0].paused || hosts_[1].paused)
                return false;
            crash_blockd(0, outage());
            crash_blockd(1, outage());
            return true;
        case Fault::pause_short:
            if (!hosts_[node].up()) return false;
            pause(node, milliseconds(random_.between(5, 3000)));
            return true;
        case Fault::pause_long:
            if (!hosts_[node].up()) return false;
            pause(node, milliseconds(random_.between(8000, 45'000)));
            return true;
        default: return false;
    }
}

void World::flap(std::uint32_t times) {
    if (times == 0 || healing_) return;
    network_.cut_both_ways(Cable::link1, 0, 1, true);
    network_.cut_both_ways(Cable::link2, 0, 1, true);
    tasks_.after(milliseconds(random_.between(400, 2600)), [this, times] {
        network_.cut_both_ways(Cable::link1, 0, 1, false);
        network_.cut_both_ways(Cable::link2, 0, 1, false);
        tasks_.after(milliseconds(random_.between(100, 900)), [this, times] { flap(times - 1); });
    });
}

bool World::inject_network_fault(Fault fault, std::uint32_t node) {
    const std::uint32_t other = 1 - node;
    const auto cut_for = [this](std::initializer_list<Cable> cables, std::uint32_t from, std::uint32_t to,
                                bool both) {
        const std::vector<Cable> list(cables);
        const auto set = [this, list, from, to, both](bool cut) {
            for (const Cable cable : list) {
                network_.direction(cable, from, to).cut = cut;
                if (both) network_.direction(cable, to, from).cut = cut;
            }
            network_.changed();
        };
        set(true);
        tasks_.after(outage(), [set] { set(false); });
        return true;
    };
    const auto worsen = [this](std::uint32_t lossy, std::uint32_t slow) {
        for (const Cable cable : {Cable::link1, Cable::link2}) {
            if (random_.chance(1, 3)) continue;
            for (std::uint32_t from = 0; from < 2; ++from) {
                network_.direction(cable, from, 1 - from).lossy_percent = lossy;
                network_.direction(cable, from, 1 - from).slow_factor = slow;
            }
        }
        tasks_.after(outage(), [this] {
            for (const Cable cable : {Cable::link1, Cable::link2}) {
                for (std::uint32_t from = 0; from < 2; ++from) {
                    network_.direction(cable, from, 1 - from).lossy_percent = 0;
                    network_.direction(cable, from, 1 - from).slow_factor = 1;
                }
            }
        });
        return true;
    };
    switch (fault) {
        case Fault::cut_links: return cut_for({Cable::link1, Cable::link2}, node, other, true);
        case Fault::cut_links_one_way: return cut_for({Cable::link1, Cable::link2}, node, other, false);
        case Fault::cut_one_link: return cut_for({Cable::link1}, node, other, random_.chance(1, 2));
        case Fault::cut_control: return cut_for({Cable::control}, node, other, random_.chance(1, 2));
        case Fault::cut_everything_between:
            return cut_for({Cable::control, Cable::link1, Cable::link2, Cable::management}, node, other,
                           true);
        case Fault::cut_witness_path: return cut_for({Cable::control}, node, kWitness, true);
        case Fault::witness_down:
            if (!witness_up_) return false;
            witness_up_ = false;
            control_->witness_changed();
            tasks_.after(outage() + seconds(2), [this] {
                witness_up_ = true;
                control_->witness_changed();
            });
            return true;
        case Fault::reset_session: link_.reset(); return true;
        case Fault::corrupt_frame: return link_.corrupt();
        case Fault::version_skew:  // upgraded, and its peer is not yet: no session until it is taken back
            if (!blocks_[node]->running() || hosts_[node].paused) return false;
            link_.set_protocol(node, 2);
            crash_blockd(node, milliseconds(random_.between(100, 900)));
            tasks_.after(outage() + seconds(1), [this, node] {
                link_.set_protocol(node, 1);
                crash_blockd(node, milliseconds(random_.between(100, 900)));
            });
            return true;
        case Fault::flap_links: flap(static_cast<std::uint32_t>(random_.between(2, 6))); return true;
        case Fault::lossy_links: return worsen(static_cast<std::uint32_t>(random_.between(1, 30)), 1);
        case Fault::slow_links: return worsen(0, static_cast<std::uint32_t>(random_.between(5, 200)));
        default: return false;
    }
}

void World::restore_old_image(std::uint32_t node) {
    if (hosts_[node].powered || !old_images_[node]) return;  // a later one may still find it
    OldImage& old = *old_images_[node];
    // within one generation an old image cannot be told from the newest one by anybody: a stated limit
    const bool tellable = old.replica == replicas_[node] &&
                          old.generation + 1 < control_->committed().record.generation.counter &&
                          !control_->in_ack_set(node);
    if (!tellable) return;
    counters_.add("site.old_image_restored");
    disks_[node]->restore(old.image);
    old_images_[node].reset();
}

bool World::inject_disk_fault(Fault fault, std::uint32_t node) {
    Disk& disk = *disks_[node];
    DiskFaults& faults = disk.faults();
    switch (fault) {
        case Fault::slow_disk:
            faults.slow_factor = static_cast<std::uint32_t>(random_.between(5, 100));
            tasks_.after(outage(), [this, node] { disks_[node]->faults().slow_factor = 1; });
            return true;
        case Fault::hang_disk: faults.hang_next = true; return true;
        case Fault::short_write:
            faults.short_writes += static_cast<std::uint32_t>(random_.between(1, 8));
            return true;
        case Fault::flush_error:
            faults.fail_next_flush = true;
            history_.node_lost_volatile(node);
            return true;
        case Fault::write_error: faults.fail_next_write = true; return true;
        case Fault::metadata_write_error: faults.fail_next_metadata_write = true; return true;
        case Fault::bad_sector:
            faults.bad_sector = static_cast<std::int64_t>(guest_->hot_sector(random_));
            return true;
        case Fault::dead_disk:
            if (disks_[1 - node]->faults().dead || !control_->in_ack_set(1 - node)) return false;
            faults.dead = true;
            history_.node_lost_volatile(node);
            tasks_.after(outage(), [this, node] { disks_[node]->faults().dead = false; });
            return true;
        case Fault::misdirected_metadata: faults.misdirect_next = true; return true;
        case Fault::old_image:
            node = 1 - owner_or_random();  // the owner's leave needs a proof, the peer's a few seconds
            if (!hosts_[node].powered) return false;
            if (!old_images_[node] || old_images_[node]->replica != replicas_[node]) {
                take_image(node);
                return true;
            }
            power_off(node);
            network_.set_bmc(node, false);  // somebody works on it: nobody else switches it on
            tasks_.after(milliseconds(random_.between(6000, 20'000)), [this, node] {
                restore_old_image(node);
                power_on(node);
            });
            return true;
        default: return false;
    }
}

bool World::inject_control_fault(Fault fault, std::uint32_t node) {
    switch (fault) {
        case Fault::guest_crash:
            if (!guest_->alive()) return false;
            end_guest(guest_->node());
            control_->guest_ended();
            return true;
        case Fault::handover: control_->ask_handover(); return true;
        case Fault::clusterd_crash:
            if (!clusterd_[node]) return false;
            crash_clusterd(node);
            return true;
        case Fault::store_trouble:
            control_->set_trouble(random_.chance(2, 3), random_.chance(2, 3));
            tasks_.after(outage() + seconds(1), [this] { control_->set_trouble(false, false); });
            return true;
        case Fault::leave_and_return:
            if (!control_->ask_leave(node)) return false;
            tasks_.after(milliseconds(random_.between(20'000, 60'000)), [this, node] { power_on(node); });
            return true;
        case Fault::witness_image:
            // A voter that forgets breaks any store: while others fail, too. So everything is well when it
            // does.
            control_->take_witness_image();
            tasks_.after(milliseconds(random_.between(3000, 15'000)), [this] {
                if (healing_ || cut_at_commit_ || poisoned_ || !control_->restore_witness_image()) return;
                counters_.add("site.witness_image_restored");
                quiet_until_ = queue_.now() + seconds(3);
            });
            return true;
        case Fault::fence_broken: {
            constexpr std::array<FenceMood, 3> kBad = {FenceMood::slow, FenceMood::fails, FenceMood::hangs};
            fence_moods_[node] = kBad[random_.below(kBad.size())];
            tasks_.after(outage() + seconds(10), [this, node] { fence_moods_[node] = FenceMood::works; });
            return true;
        }
        default: return false;
    }
}

}  // namespace gemel::sim
