#include "core/cluster/guest_agent.hpp"

#include <algorithm>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

void GuestAgent::move(const std::string& name, Run& run, State to, const std::string& why) {
    run.state = to;
    run.since = context_.now;
    run.repeat_at = context_.now;
    context_.log("info", "vm/" + name + ": " + why);
}

bool GuestAgent::leaving() const {
    const auto* self = context_.node(context_.config.name);
    return self != nullptr && self->state == NodeState::leaving;
}

bool GuestAgent::serving(const PlacementRecord& placement) const {
    for (const auto& [name, epoch] : placement.epochs) {
        const auto row = context_.gated.volumes.find(name);
        if (row == context_.gated.volumes.end()) return false;
        const auto facts = context_.volumes.find(row->second.record.id);
        if (facts == context_.volumes.end() || facts->second.view.role != replication::Role::primary ||
            facts->second.view.epoch != epoch) {
            return false;
        }
    }
    return true;
}

bool GuestAgent::has_front_client(const PlacementRecord& placement) const {
    for (const auto& [name, epoch] : placement.epochs) {
        const auto row = context_.gated.volumes.find(name);
        if (row == context_.gated.volumes.end()) return false;
        const auto facts = context_.volumes.find(row->second.record.id);
        if (facts == context_.volumes.end() || facts->second.view.epoch != epoch ||
            facts->second.front_sessions == 0) {
            return false;
        }
    }
    return true;
}

// A domain that an older list does not show may run: its start ended after that (C1).
bool GuestAgent::listed_since(Run& run) {
    if (context_.domains_known && context_.domain_lists > run.lists_before) return true;
    if (context_.now >= run.list_again) {
        run.list_again = context_.now + seconds(1);
        context_.emit(ListDomains{});
    }
    return false;
}

void GuestAgent::adopt() {
    for (const auto& [name, row] : context_.gated.guests) {
        const auto& placement = row.record.placement;
        if (!placement || !context_.this_life(*placement)) continue;
        auto at = runs_.find(name);
        if (at != runs_.end() && at->second.placement.epochs == placement->epochs) {
            at->second.placement = *placement;
            continue;
        }
        if (at != runs_.end()) continue;  // the former start is still being cleared away
        Run run;
        run.placement = *placement;
        run.inherited = first_look_;
        run.lists_before = context_.domain_lists;
        runs_[name] = run;
        move(name, runs_[name], State::looking, "placed here; looking for its domain");
    }
}

// A known guest's domain that runs here without a placement of this life has no right to (C1).
void GuestAgent::drop_intruders() {
    intruders_.clear();
    if (!context_.domains_known) return;
    for (const auto& [name, row] : context_.gated.guests) {
        const GuestRecord& guest = row.record;
        if (runs_.contains(name) || context_.domain(guest.uuid) == nullptr) continue;
        if (guest.placement && context_.this_life(*guest.placement)) continue;
        if (migrations_.to_here(guest)) continue;
        intruders_[guest.uuid] = name;
        auto& repeat = destroying_[guest.uuid];
        if (context_.now < repeat) continue;
        repeat = context_.now + kStopRepeat;
        if (context_.domain(guest.uuid)->state == DomainState::paused) {
            context_.log("info", "vm/" + name + ": what a migration left here is destroyed");
        } else {
            context_.event("error", "vm.no-right", "vm/" + name,
                           "its domain runs here without a lease: destroyed");
        }
        const Tag tag = context_.tag();
        context_.domain_waits[tag] = [](const DomainDone&) {};
        context_.emit(DestroyDomain{tag, guest.uuid, "no right to run here"});
    }
}

void GuestAgent::evaluate() {
    if (!context_.acting || !context_.gated.lineage) return;
    adopt();
    first_look_ = false;
    drop_intruders();
    for (auto at = runs_.begin(); at != runs_.end();) {
        bool erase = false;
        advance(at->first, at->second, erase);
        at = erase ? runs_.erase(at) : std::next(at);
    }
}

void GuestAgent::advance(const std::string& name, Run& run, bool& erase) {
    const auto at = context_.gated.guests.find(name);
    const bool mine = at != context_.gated.guests.end() && at->second.record.placement &&
                      context_.this_life(*at->second.record.placement) &&
                      at->second.record.placement->epochs == run.placement.epochs;
    if (!mine && !run.placement_lost && run.state != State::committing) {
        // Moved away: QEMU here has stopped for good, and libvirt is about to end it.
        if (at != context_.gated.guests.end() && migrations_.tidying(at->second.record.uuid)) {
            const DomainView* here = context_.domain(at->second.record.uuid);
            if (here != nullptr && here->state != DomainState::running) return;
        }
        run.placement_lost = true;
        for (const auto& [volume, epoch] : run.placement.epochs) {
            const auto row = context_.gated.volumes.find(volume);
            if (row != context_.gated.volumes.end())
                context_.emit(GuardRevoked{row->second.record.id, epoch});
        }
        if (run.state < State::clearing) move(name, run, State::clearing, "its placement here is over");
    }
    if (run.busy) return;
    if (at == context_.gated.guests.end() && run.state < State::closing) {
        run.state = State::closing;
    }
    switch (run.state) {
        case State::looking: return look(name, at->second, run);
        case State::starting: return;
        case State::running: return watch(name, at->second, run);
        case State::stopping: return stop(name, at->second, run);
        case State::clearing: return clear(name, at->second.record, run);
        case State::closing: return close(name, run, erase);
        case State::committing:
            if (!mine) {
                erase = true;
                const auto guest = context_.gated.guests.find(name);
                if (guest != context_.gated.guests.end())
                    context_.emit(GuardForget{guest->second.record.uuid});
            } else if (context_.now >= run.repeat_at) {
                commit_cleared(name);
                run.repeat_at = context_.now + seconds(1);
            }
            return;
    }
}

void GuestAgent::look(const std::string& name, const Row<GuestRecord>& row, Run& run) {
    const GuestRecord& guest = row.record;
    const bool looked = listed_since(run) || mutant("start_without_lookup");
    if ((guest.wish == GuestWish::stopped || leaving()) && context_.domain(guest.uuid) == nullptr && looked) {
        return move(name, run, State::clearing, "not wanted any more");
    }
    if (!looked) return;
    if (context_.domain(guest.uuid) != nullptr && !mutant("start_without_lookup")) {
        // A committed start is believed; one that was only begun must show that it uses this start's disks.
        if (run.placement.phase != GuestPhase::starting || has_front_client(run.placement)) {
            keep_guarded(name, guest, run);
            commit_phase(name, row, GuestPhase::running);
            return move(name, run, State::running, "its domain runs already");
        }
        // Daemons that were just restarted: blockd has not said yet who is connected, and a QEMU takes
        // seconds to connect again.
        if (context_.now - run.since < kAdoptGrace) return;
        if (context_.now >= run.repeat_at) {
            run.repeat_at = context_.now + kStopRepeat;
            const Tag tag = context_.tag();
            context_.domain_waits[tag] = [](const DomainDone&) {};
            context_.emit(DestroyDomain{tag, guest.uuid, "left over from an earlier start"});
        }
        return;
    }
    // Placed here as running, by a migration: it ended before it was seen here.
    if (run.inherited || run.placement.phase == GuestPhase::running) {
        // An earlier process of clusterd may have started it in this epoch, and it has ended since. What that
        // QEMU had in flight is still held by blockd, and must not land under another one: a new epoch.
        run.failed = run.placement.phase == GuestPhase::running && guest.wish == GuestWish::running;
        run.error = !run.failed     ? ""
                    : run.inherited ? "its domain ended while gemel-clusterd was away"
                                    : "its domain ended as it was moved to " + context_.config.name;
        return move(name, run, State::clearing, "it may have run in this epoch before and is gone");
    }
    if (cleared_for_its_disk(name, run)) return;
    if (serving(run.placement)) return start(name, row, run);
    if (context_.now - run.since > kServeTimeout) {
        run.failed = true;
        run.error = "its volumes could not be served here";
        move(name, run, State::clearing, run.error);
    }
}

// Another node could be granted one of its volumes while this one is cut off.
bool GuestAgent::regrant_possible(const PlacementRecord& placement) const {
    if (context_.voter_count() <= 2) return false;
    return std::ranges::any_of(placement.epochs, [this](const auto& disk) {
        const auto row = context_.gated.volumes.find(disk.first);
        return row != context_.gated.volumes.end() &&
               std::ranges::count_if(row->second.record.replicas, &ReplicaRecord::in_ack_set) > 1;
    });
}

// Told before the domain starts, again when it is adopted (the guard may have been restarted since), and
// whenever another node becomes or ceases to be one that could be granted its volumes.
void GuestAgent::keep_guarded(const std::string& name, const GuestRecord& guest, Run& run) {
    const bool possible = regrant_possible(run.placement);
    if (run.regrant_told == possible) return;
    run.regrant_told = possible;
    GuardRegister guarded{guest.uuid, name, {}, possible};
    for (const auto& [volume, epoch] : run.placement.epochs) {
        const auto row = context_.gated.volumes.find(volume);
        if (row != context_.gated.volumes.end())
            guarded.volumes.push_back({volume, row->second.record.id, epoch});
    }
    context_.emit(std::move(guarded));
}

void GuestAgent::start(const std::string& name, const Row<GuestRecord>& row, Run& run) {
    StartDomain start{context_.tag(), row.record, {}};
    for (const auto& disk : row.record.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end() || !volume->second.record.owner) return;
        const VolumeRecord& record = volume->second.record;
        start.disks.push_back({disk.target, disk.volume, record.id, record.owner->epoch, record.owner->secret,
                               record.size_bytes});
    }
    keep_guarded(name, row.record, run);
    run.busy = true;
    move(name, run, State::starting, "starting its domain");
    context_.domain_waits[start.tag] = [this, name](const DomainDone& done) {
        const auto at = runs_.find(name);
        if (at == runs_.end()) return;
        at->second.busy = false;
        // The next list may have been begun before the domain was there; the one after it was not.
        at->second.lists_before = context_.domain_lists + 1;
        at->second.list_again = {};
        context_.emit(ListDomains{});
        const auto guest = context_.gated.guests.find(name);
        if (!done.ok) {
            at->second.failed = true;
            at->second.error = done.detail;
            context_.event("error", "vm.start-failed", "vm/" + name, done.detail);
            return move(name, at->second, State::clearing, "its domain did not start");
        }
        context_.event("info", "vm.started", "vm/" + name, "runs on " + context_.config.name);
        if (at->second.state == State::starting) move(name, at->second, State::running, "its domain runs");
        if (guest != context_.gated.guests.end()) commit_phase(name, guest->second, GuestPhase::running);
    };
    context_.emit(std::move(start));
}

void GuestAgent::commit_phase(const std::string& name, const Row<GuestRecord>& row, GuestPhase phase) {
    if (!row.record.placement || row.record.placement->phase == phase) return;
    GuestRecord next = row.record;
    next.placement->phase = phase;
    Txn txn;
    context_.reads(txn, keys::guest(name), row);
    txn.puts.push_back({keys::guest(name), encode(next), 0});
    context_.commit(std::move(txn), false, false, nullptr);
    const auto run = runs_.find(name);
    if (run != runs_.end()) run->second.repeat_at = context_.now + seconds(1);
}

// An operator said that this node is off, and it lives: the peer's blockd refuses the epoch for good, nothing
// makes its lease fresh again. Giving it back is the only way on (C2, C12).
bool GuestAgent::lease_revoked(const PlacementRecord& placement) const {
    return std::ranges::any_of(placement.epochs, [this](const auto& disk) {
        const auto row = context_.gated.volumes.find(disk.first);
        if (row == context_.gated.volumes.end()) return false;
        const auto& owner = row->second.record.owner;
        return owner && owner->revoking && owner->node == context_.config.name && owner->epoch == disk.second;
    });
}

// Given up for a switch that could not be committed: nothing serves that epoch again (0011).
bool GuestAgent::epoch_refused(const PlacementRecord& placement) const {
    return std::ranges::any_of(placement.epochs, [this](const auto& disk) {
        const auto row = context_.gated.volumes.find(disk.first);
        if (row == context_.gated.volumes.end() || !row->second.record.owner ||
            row->second.record.owner->epoch != disk.second)
            return false;
        const auto facts = context_.volumes.find(row->second.record.id);
        return facts != context_.volumes.end() && facts->second.view.attached &&
               facts->second.view.refused_epoch >= disk.second;
    });
}

// A disk that cannot be served here any more in this epoch, while a copy is current elsewhere (0001, "Local
// disk"). The replica here has failed and left the ack set, and this guest is not served over the network:
// blockd's process is another than the one that served it, or the other node rebooted with something answered
// and not flushed. Or it counts still, but failed before that could be committed, and the processes that
// follow find that the other copy must go on. Or blockd cannot attach the replica at all, which is not known
// at once.
std::string GuestAgent::disk_lost(Run& run) const {
    bool unattached = false;
    std::string lost;
    for (const auto& [name, epoch] : run.placement.epochs) {
        const auto row = context_.gated.volumes.find(name);
        if (row == context_.gated.volumes.end()) continue;
        const VolumeRecord& record = row->second.record;
        const bool counts = in_ack_set(record, context_.config.name);
        if (!record.owner || record.owner->epoch != epoch || ack_set(record).size() <= (counts ? 1U : 0U))
            continue;
        const auto facts = context_.volumes.find(record.id);
        if (facts == context_.volumes.end() || !facts->second.view.attached) {
            if (!context_.blockd_up) continue;
            unattached = true;
            const Duration patience = counts ? kAttachPatience : kAttachGrace;
            if (run.unattached_since && context_.now - *run.unattached_since >= patience) lost = name;
            continue;
        }
        const replication::View& view = facts->second.view;
        const bool served = view.role == replication::Role::primary && view.epoch == epoch;
        if (served) run.served.insert(name);
        // A guest that moved here runs before this node's view shows that its disk is served (seed 510).
        const bool may_lag = run.placement.phase == GuestPhase::running && !run.served.contains(name) &&
                             context_.now - run.since < kAttachGrace;
        if ((!counts && !served && !may_lag) || view.frozen == replication::FreezeReason::disk_lost)
            lost = name;
    }
    if (!unattached) {
        run.unattached_since.reset();
    } else if (!run.unattached_since) {
        run.unattached_since = context_.now;
    }
    return lost;
}

// What the guest still runs on is its memory: it begins anew where its disk is, as after a power cut.
bool GuestAgent::cleared_for_its_disk(const std::string& name, Run& run) {
    const std::string volume = disk_lost(run);
    if (volume.empty()) return false;
    // Committed as current all the same: the planner might start it here again, and must try elsewhere.
    run.failed = in_ack_set(context_.gated.volumes.at(volume).record, context_.config.name);
    run.error = "its disk " + volume + " cannot be served on " + context_.config.name + " any more";
    context_.event("error", "vm.disk-lost", "vm/" + name, run.error + ": it is started where a copy is");
    move(name, run, State::clearing, "clearing it away");
    return true;
}

void GuestAgent::watch(const std::string& name, const Row<GuestRecord>& row, Run& run) {
    const GuestRecord& guest = row.record;
    keep_guarded(name, guest, run);
    if (guest.migration) return;
    if (listed_since(run)) {
        const DomainView* seen = context_.domain(guest.uuid);
        if (seen == nullptr || seen->state == DomainState::crashed || seen->state == DomainState::shut_off) {
            run.shut_off = seen != nullptr && seen->state == DomainState::shut_off;
            run.failed = !run.shut_off && guest.wish == GuestWish::running && !leaving();
            run.error = run.failed ? "its domain ended unexpectedly on " + context_.config.name : "";
            if (run.failed) context_.event("error", "vm.crashed", "vm/" + name, run.error);
            return move(name, run, State::clearing, "its domain is gone");
        }
    }
    if (lease_revoked(run.placement)) {
        run.error = "its lease on " + context_.config.name + " was revoked by the operator's confirm-down";
        context_.event("warning", "vm.lease-revoked", "vm/" + name, run.error);
        return move(name, run, State::clearing, "its lease was revoked");
    }
    if (epoch_refused(run.placement)) {
        run.error = "its disks were given up for a migration that did not end";
        context_.event("error", "vm.migration-failed", "vm/" + name, run.error + ": it is started anew");
        return move(name, run, State::clearing, run.error);
    }
    if (cleared_for_its_disk(name, run)) return;
    if (guest.wish == GuestWish::stopped || leaving()) {
        commit_phase(name, row, GuestPhase::stopping);
        return move(name, run, State::stopping, "stopping");
    }
    if (guest.placement->phase != GuestPhase::running && context_.now >= run.repeat_at) {
        commit_phase(name, row, GuestPhase::running);
    }
}

void GuestAgent::stop(const std::string& name, const Row<GuestRecord>& row, Run& run) {
    const GuestRecord& guest = row.record;
    if (listed_since(run) && context_.domain(guest.uuid) == nullptr) {
        return move(name, run, State::clearing, "its domain is gone");
    }
    const DomainView* seen = context_.domain(guest.uuid);
    if (seen != nullptr && (seen->state == DomainState::shut_off || seen->state == DomainState::crashed)) {
        return move(name, run, State::clearing, "its domain is shut off");
    }
    if (guest.wish == GuestWish::running && !leaving()) {
        return move(name, run, State::running, "shall run on after all");
    }
    if (cleared_for_its_disk(name, run)) return;  // it would not follow the button
    if (context_.now < run.repeat_at) return;
    run.repeat_at = context_.now + kStopRepeat;
    const Tag tag = context_.tag();
    context_.domain_waits[tag] = [this](const DomainDone&) { context_.emit(ListDomains{}); };
    const bool patience_over = leaving() && context_.now - run.since > kLeavePatience;
    if (guest.power_off || patience_over) {
        context_.emit(DestroyDomain{tag, guest.uuid, "power-off asked for"});
    } else {
        context_.emit(ShutdownDomain{tag, guest.uuid});
    }
}

void GuestAgent::clear(const std::string& name, const GuestRecord& guest, Run& run) {
    if (!listed_since(run)) return;
    if (context_.domain(guest.uuid) == nullptr) {
        run.repeat_at = context_.now;
        return move(name, run, State::closing, "closing its front ends");
    }
    if (context_.now < run.repeat_at) return;
    run.repeat_at = context_.now + kStopRepeat;
    context_.destroy_domain(guest.uuid, run.error.empty() ? "cleared away" : run.error);
}

void GuestAgent::close(const std::string& name, Run& run, bool& erase) {
    if (run.placement_lost) {
        // The leases are another's or nobody's already: blockd learns that from the records.
        erase = true;
        const auto guest = context_.gated.guests.find(name);
        if (guest != context_.gated.guests.end()) context_.emit(GuardForget{guest->second.record.uuid});
        return;
    }
    if (context_.now < run.repeat_at) return;
    run.closing = 0;
    for (const auto& [volume, epoch] : run.placement.epochs) {
        const auto row = context_.gated.volumes.find(volume);
        if (row == context_.gated.volumes.end()) continue;
        ++run.closing;
        run.busy = true;
        const Tag tag = context_.tag();
        context_.blockd_waits[tag] = [this, name](const BlockdDone& done) {
            const auto at = runs_.find(name);
            if (at == runs_.end()) return;
            if (!done.ok) {
                at->second.repeat_at = context_.now + seconds(1);
                at->second.busy = false;
            } else if (--at->second.closing == 0) {
                at->second.busy = false;
                move(name, at->second, State::committing, "giving its leases back");
            }
        };
        context_.emit(BlockdRelease{tag, row->second.record.id, epoch});
    }
    if (run.closing == 0) move(name, run, State::committing, "giving its leases back");
}

void GuestAgent::commit_cleared(const std::string& name) {
    const Run& run = runs_.at(name);
    const auto& row = context_.gated.guests.at(name);
    GuestRecord next = row.record;
    next.placement.reset();
    next.migration.reset();
    next.last_error = run.error;
    if (run.failed) ++next.restarts;
    if (run.shut_off && next.wish == GuestWish::running && !leaving()) {
        next.wish = GuestWish::stopped;
        context_.event("info", "vm.shut-off", "vm/" + name, "was shut down from inside; it stays stopped");
    }
    Txn txn;
    context_.reads(txn, keys::guest(name), row);
    txn.puts.push_back({keys::guest(name), encode(next), 0});
    for (const auto& [volume, epoch] : run.placement.epochs) {
        const auto at = context_.gated.volumes.find(volume);
        if (at == context_.gated.volumes.end()) continue;
        const auto& owner = at->second.record.owner;
        if (!owner || owner->epoch != epoch || owner->node != context_.config.name) continue;
        context_.reads(txn, keys::volume(volume), at->second);
        txn.puts.push_back({keys::volume(volume), encode(released(at->second.record)), 0});
    }
    context_.commit(std::move(txn), false, false, nullptr);
}

}  // namespace gemel::cluster
