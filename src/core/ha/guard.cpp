#include "core/ha/guard.hpp"

#include <algorithm>

#include "base/mutant.hpp"

namespace gemel::ha {

std::string_view to_string(GuardState state) {
    switch (state) {
        case GuardState::allowed: return "running";
        case GuardState::freezing: return "freezing";
        case GuardState::frozen: return "frozen";
        case GuardState::thawing: return "thawing";
        case GuardState::killing: return "killing";
    }
    return "unknown";
}

// The earliest end of its leases; a lease never heard of has ended, but that of a guest which moves here is
// on its way: where it does not come, the guest may run elsewhere as well (scenario L5).
Instant Guard::lease_end(const Entry& entry) const {
    Instant end = Instant::never();
    for (const auto& volume : entry.volumes) {
        const auto lease = leases_.find({volume.volume, volume.epoch});
        if (lease != leases_.end()) {
            end = std::min(end, lease->second);
        } else if (!entry.incoming) {
            end = Instant{};
        } else if (entry.arrived != Instant::never()) {
            end = std::min(end, entry.arrived + config_.arrival);
        }
    }
    return end;
}

Instant Guard::kill_at(const Entry& entry) const {
    Instant at = Instant::never();
    for (const auto& volume : entry.volumes) {
        const auto known = kill_at_.find({volume.volume, volume.epoch});
        if (known != kill_at_.end()) at = std::min(at, known->second);
    }
    if (entry.regrant_possible) {
        const Instant end = std::max(lease_end(entry), entry.since);
        at = std::min(at, end + config_.kill_after);
    }
    return at;
}

bool Guard::lost(const Entry& entry) const {
    return std::any_of(entry.volumes.begin(), entry.volumes.end(), [this](const GuardVolume& volume) {
        return lost_.contains({volume.volume, volume.epoch});
    });
}

void Guard::feed(bool wanted, const std::string& reason, GuardOutputs& outputs) {
    if (feeding_ == wanted) return;
    feeding_ = wanted;
    outputs.push_back(FeedWatchdog{wanted, reason});
}

// The one place where a guest's state changes.
void Guard::move(Instant now, const GuestId& id, Entry& entry, GuardState to, const std::string& reason,
                 GuardOutputs& outputs) {
    entry.state = to;
    entry.since = now;
    entry.reason = reason;
    outputs.push_back(GuardLog{entry.name + ": " + std::string(to_string(to)) + ": " + reason});
    switch (to) {
        case GuardState::freezing: outputs.push_back(FreezeDomain{id, entry.name, reason}); break;
        case GuardState::thawing: outputs.push_back(ThawDomain{id, entry.name}); break;
        case GuardState::killing: outputs.push_back(KillDomain{id, entry.name, reason}); break;
        case GuardState::allowed:
        case GuardState::frozen: break;
    }
}

void Guard::evaluate(Instant now, const GuestId& id, Entry& entry, GuardOutputs& outputs) {
    const bool gone = entry.seen == SeenDomain::gone;
    if (gone) {  // not started yet, or over: nothing to watch until it is seen (again)
        if (entry.ever_seen) {
            entry.ever_seen = false;
            move(now, id, entry, GuardState::allowed, "its process has ended", outputs);
        }
        return;
    }
    const bool fresh = now < lease_end(entry);
    if (entry.state != GuardState::killing && !mutant("guard_never_kills")) {
        if (lost(entry)) {
            return move(now, id, entry, GuardState::killing, "ownership of its disk is lost", outputs);
        }
        const bool stopped = entry.state == GuardState::frozen || entry.state == GuardState::freezing;
        if (!fresh && stopped && now >= kill_at(entry)) {
            return move(now, id, entry, GuardState::killing, "another node may be granted its disk soon",
                        outputs);
        }
    }
    switch (entry.state) {
        case GuardState::allowed:
            if (!fresh && !mutant("guard_never_kills")) {
                move(now, id, entry, GuardState::freezing, "a lease ran out", outputs);
            }
            return;
        case GuardState::freezing:
            if (entry.seen == SeenDomain::paused) {
                move(now, id, entry, GuardState::frozen, "paused", outputs);
            } else if (now - entry.since >= config_.verify) {
                move(now, id, entry, GuardState::killing, "it could not be paused", outputs);
            }
            return;
        case GuardState::frozen:
            if (fresh) {
                move(now, id, entry, GuardState::thawing, "the leases are fresh", outputs);
            } else if (entry.seen == SeenDomain::running) {
                move(now, id, entry, GuardState::freezing, "it was resumed without a lease", outputs);
            }
            return;
        case GuardState::thawing:
            if (!fresh) {
                move(now, id, entry, GuardState::freezing, "a lease ran out", outputs);
            } else if (entry.seen == SeenDomain::running) {
                move(now, id, entry, GuardState::allowed, "runs", outputs);
            } else if (now - entry.since >= config_.verify) {
                move(now, id, entry, GuardState::thawing, "still paused; resumed again", outputs);
            }
            return;
        case GuardState::killing:
            if (now - entry.since >= config_.verify) {
                feed(false, entry.name + " could not be killed", outputs);
                move(now, id, entry, GuardState::killing, entry.reason, outputs);
            }
            return;
    }
}

void Guard::step(Instant now, const GuardInput& input, GuardOutputs& outputs) {
    if (const auto* add = std::get_if<Register>(&input)) {
        Entry& entry = guests_[add->guest];
        entry.name = add->name;
        // told again when it is placed here, in the same epochs
        entry.incoming = add->incoming || (entry.incoming && entry.volumes == add->volumes);
        if (entry.volumes != add->volumes) entry.arrived = Instant::never();
        entry.volumes = add->volumes;
        entry.regrant_possible = add->regrant_possible;
    } else if (const auto* lease = std::get_if<LeaseUntil>(&input)) {
        auto& until = leases_[{lease->volume, lease->epoch}];
        until = std::max(until, lease->until);  // it only ever grows within an epoch
    } else if (const auto* over = std::get_if<OwnershipLost>(&input)) {
        lost_.insert({over->volume, over->epoch});
    } else if (const auto* kill = std::get_if<KillAt>(&input)) {
        kill_at_[{kill->volume, kill->epoch}] = kill->at;
    } else if (const auto* forget = std::get_if<Forget>(&input)) {
        const auto entry = guests_.find(forget->guest);
        if (entry != guests_.end()) {
            for (const auto& volume : entry->second.volumes) {
                leases_.erase({volume.volume, volume.epoch});
                kill_at_.erase({volume.volume, volume.epoch});
                lost_.erase({volume.volume, volume.epoch});
            }
            guests_.erase(entry);
        }
    } else if (const auto* seen = std::get_if<DomainSeen>(&input)) {
        const auto entry = guests_.find(seen->guest);
        if (entry != guests_.end()) {
            entry->second.seen = seen->seen;
            if (seen->seen == SeenDomain::running)
                entry->second.arrived = std::min(entry->second.arrived, now);
            entry->second.ever_seen = entry->second.ever_seen || seen->seen != SeenDomain::gone;
        }
    }
    for (auto& [id, entry] : guests_) evaluate(now, id, entry, outputs);
    const bool stuck = std::any_of(guests_.begin(), guests_.end(), [&](const auto& one) {
        return one.second.state == GuardState::killing && one.second.seen != SeenDomain::gone;
    });
    if (!stuck) feed(true, "nothing is left to verify", outputs);
}

Instant Guard::next_deadline() const {
    Instant next = Instant::never();
    for (const auto& [id, entry] : guests_) {
        if (entry.seen == SeenDomain::gone) continue;  // its old leases' ends wake nobody
        switch (entry.state) {
            case GuardState::allowed: next = std::min(next, lease_end(entry)); break;
            case GuardState::freezing:
            case GuardState::thawing:
            case GuardState::killing: next = std::min(next, entry.since + config_.verify); break;
            case GuardState::frozen: next = std::min(next, kill_at(entry)); break;
        }
    }
    return next;
}

std::vector<GuardView> Guard::view() const {
    std::vector<GuardView> views;
    for (const auto& [id, entry] : guests_) views.push_back({id, entry.name, entry.state, lease_end(entry)});
    return views;
}

}  // namespace gemel::ha
