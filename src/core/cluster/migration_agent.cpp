#include "core/cluster/migration_agent.hpp"

#include <algorithm>
#include <utility>

#include "core/cluster/migration_rules.hpp"
#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

bool MigrationAgent::mine(const GuestRecord& guest) const {
    return guest.placement && context_.this_life(*guest.placement);
}

bool MigrationAgent::to_here(const GuestRecord& guest) const {
    return guest.migration && context_.this_life(*guest.migration);
}

bool MigrationAgent::tidying(const GuestId& guest) const {
    return std::ranges::any_of(sources_, [&](const auto& one) {
        const auto row = context_.gated.guests.find(one.first);
        // The record may be seen here before its commit is answered.
        const bool switched = one.second.switched || one.second.state == SourceState::switching;
        return switched && one.second.outstanding && row != context_.gated.guests.end() &&
               row->second.record.uuid == guest && context_.now - one.second.switched_at < kTidyPatience;
    });
}

void MigrationAgent::evaluate() {
    if (!context_.acting || !context_.gated.lineage) return;
    forget_ended();
    for (const auto& [name, row] : context_.gated.guests) {
        if (!row.record.migration) continue;
        if (mine(row.record)) source(name, row);
        if (to_here(row.record)) destination(name, row);
    }
}

// A migration that is not in the tables any more was switched, given up, or ended by a failover.
bool MigrationAgent::in_tables(const std::string& name, const std::string& secret) const {
    const auto row = context_.gated.guests.find(name);
    return row != context_.gated.guests.end() && row->second.record.migration &&
           row->second.record.migration->secret == secret;
}

bool MigrationAgent::source_ended(const std::string& name, Source& source) {
    if (source.busy || in_tables(name, source.secret)) return false;
    if (!source.outstanding) return true;
    const auto row = context_.gated.guests.find(name);
    const bool tidies = source.switched && context_.now - source.switched_at < kFinishPatience;
    if (!tidies && row != context_.gated.guests.end() && context_.now >= source.repeat_at) {
        source.repeat_at = context_.now + seconds(1);
        context_.emit(CancelMigration{row->second.record.uuid});
    }
    return false;
}

bool MigrationAgent::destination_ended(const std::string& name, Destination& destination) {
    if (destination.busy || in_tables(name, destination.secret)) return false;
    const auto row = context_.gated.guests.find(name);
    const bool here = row != context_.gated.guests.end() && mine(row->second.record);
    if (destination.close_at == Instant::never())
        destination.close_at = here ? context_.now + kFinishPatience : context_.now;
    if (context_.now < destination.close_at) return false;
    if (row == context_.gated.guests.end()) return true;
    context_.emit(CloseGate{row->second.record.uuid});
    if (!here && context_.domain(row->second.record.uuid) == nullptr)
        context_.emit(GuardForget{row->second.record.uuid});
    return true;
}

void MigrationAgent::forget_ended() {
    for (auto at = sources_.begin(); at != sources_.end();)
        at = source_ended(at->first, at->second) ? sources_.erase(at) : std::next(at);
    for (auto at = destinations_.begin(); at != destinations_.end();)
        at = destination_ended(at->first, at->second) ? destinations_.erase(at) : std::next(at);
}

// ---- source

// Empty: it may go on.
std::string MigrationAgent::abort_reason(const GuestRecord& guest) const {
    const MigrationRecord& migration = *guest.migration;
    if (migration.cancel) return "cancelled";
    if (guest.wish == GuestWish::stopped) return "the guest is being stopped";
    const auto* self = context_.node(context_.config.name);
    if (self != nullptr && self->state != NodeState::member) return "its node leaves the cluster";
    const auto* node = context_.node(migration.node);
    if (node == nullptr || node->incarnation != migration.incarnation ||
        node_gone(context_.gated, migration.node))
        return migration.node + " was lost";
    if (node->state != NodeState::member) return migration.node + " leaves the cluster";
    for (const auto& disk : guest.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume != context_.gated.volumes.end() && volume->second.record.owner &&
            volume->second.record.owner->revoking)
            return "its lease is revoked";
        if (volume == context_.gated.volumes.end() || !promotable(volume->second.record, migration.node))
            return "the copy of " + disk.volume + " on " + migration.node + " is not current any more";
    }
    return {};
}

void MigrationAgent::source(const std::string& name, const Row<GuestRecord>& row) {
    const MigrationRecord& migration = *row.record.migration;
    auto& source = sources_[name];
    if (source.secret != migration.secret) {
        if (source.outstanding) return;  // libvirt is not through with the one before
        source = {};
        source.secret = migration.secret;
        source.since = context_.now;
        source.operation = migration.operation;
        context_.log("info", "vm/" + name + ": moves to " + migration.node);
    }
    if (source.busy) return;
    switch (source.state) {
        case SourceState::opening: {
            std::string reason = abort_reason(row.record);
            if (reason.empty() && context_.now - source.since > kOpenPatience)
                reason = migration.node + " did not get ready to take it within 30 s";
            if (!reason.empty()) return give_up(name, row, source, reason);
            if (!context_.domains_known) return;
            // A process of before may have got further: then the guest may be there already.
            const DomainView* here = context_.domain(row.record.uuid);
            const bool runs = here != nullptr && here->state == DomainState::running;
            if (!runs || source.arrived) {
                source.state = SourceState::copying;
                source.ended = context_.now;
            } else if (migration.phase == MigrationPhase::prepared) {
                start_copy(name, row, source);
            }
            return;
        }
        case SourceState::copying: return copying(name, row, source);
        case SourceState::releasing: return release(name, row.record, source);
        case SourceState::switching:
            if (context_.now >= source.repeat_at) commit_switch(name, row, source);
            return;
    }
}

void MigrationAgent::start_copy(const std::string& name, const Row<GuestRecord>& row, Source& source) {
    MigrateDomain order{context_.tag(), row.record, {}, *row.record.migration};
    for (const auto& disk : row.record.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end() || !volume->second.record.handover) return;
        const VolumeRecord& record = volume->second.record;
        order.disks.push_back({disk.target, disk.volume, record.id, record.handover->epoch,
                               record.handover->secret, record.size_bytes});
    }
    source.state = SourceState::copying;
    source.outstanding = true;
    context_.migrate_waits[order.tag] = [this, name, secret = source.secret](const MigrateDone& done) {
        const auto at = sources_.find(name);
        if (at == sources_.end() || at->second.secret != secret) return;
        Source& one = at->second;
        one.outstanding = false;
        one.error = done.detail;
        one.downtime_ms = done.downtime_ms;
        one.ended = context_.now;
        if (one.switched) tell_end(one);
        context_.log("info",
                     "vm/" + name + ": libvirt " + (done.ok ? "moved it" : "did not: " + done.detail));
        context_.emit(ListDomains{});
    };
    context_.emit(std::move(order));
}

void MigrationAgent::copying(const std::string& name, const Row<GuestRecord>& row, Source& source) {
    const DomainView* here = context_.domain(row.record.uuid);
    const bool runs = here != nullptr && here->state == DomainState::running;
    const bool known = context_.domains_known;
    const bool early = mutant("lease_moved_before_drain") && known && !runs;
    if ((source.arrived && known && !runs) || early) {
        source.state = SourceState::releasing;
        return release(name, row.record, source);
    }
    const std::string reason = abort_reason(row.record);
    if (source.outstanding) {
        if (!reason.empty() && context_.now >= source.repeat_at) {
            source.repeat_at = context_.now + seconds(1);
            context_.emit(CancelMigration{row.record.uuid});
        }
        return;
    }
    after_failure(name, row, source, reason);
}

// libvirt has answered, or nobody asked it (this process is another): who runs the guest?
void MigrationAgent::after_failure(const std::string& name, const Row<GuestRecord>& row, Source& source,
                                   const std::string& reason) {
    const DomainView* here = context_.domain(row.record.uuid);
    const Duration waited = context_.now - source.ended;
    if (!context_.domains_known || context_.domains_at < source.ended) return;
    const std::string why = !reason.empty() ? reason : source.error;
    if (here == nullptr) {
        if (waited > kArrivePatience || reason == row.record.migration->node + " was lost")
            give_up(name, row, source, why.empty() ? "it ended while it moved" : why);
    } else if (here->state == DomainState::running) {
        give_up(name, row, source, why.empty() ? "libvirt stopped copying it" : why);
    } else if (frozen(row.record)) {
        source.ended = context_.now;  // paused by the guard perhaps, until its lease is fresh (seed 2028)
    } else if (waited > kResumePatience && context_.now >= source.repeat_at) {
        // Neither moved nor resumed: it is ended, and started anew by the ordinary way.
        source.repeat_at = context_.now + seconds(5);
        context_.destroy_domain(row.record.uuid, "left paused by a migration that failed");
    }
}

bool MigrationAgent::frozen(const GuestRecord& guest) const {
    return std::ranges::any_of(guest.disks, [this](const GuestDisk& disk) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end()) return false;
        const auto facts = context_.volumes.find(volume->second.record.id);
        return facts == context_.volumes.end() ||
               facts->second.view.frozen != replication::FreezeReason::none;
    });
}

// The point of no return. The guest's own QEMU does not run here, and the one there has begun.
void MigrationAgent::release(const std::string& name, const GuestRecord& guest, Source& source) {
    if (context_.now < source.repeat_at) return;
    source.repeat_at = context_.now + kRepeat;
    source.releasing = 0;
    for (const auto& [volume, epoch] : guest.placement->epochs) {
        const auto row = context_.gated.volumes.find(volume);
        if (row == context_.gated.volumes.end()) continue;
        ++source.releasing;
        source.busy = true;
        const Tag tag = context_.tag();
        context_.blockd_waits[tag] = [this, name, secret = source.secret](const BlockdDone& done) {
            const auto at = sources_.find(name);
            if (at == sources_.end() || at->second.secret != secret) return;
            Source& one = at->second;
            if (!done.ok) {
                one.busy = false;  // asked of all again
            } else if (--one.releasing == 0 && one.busy) {
                one.busy = false;
                one.state = SourceState::switching;
                one.repeat_at = context_.now;
            }
        };
        context_.emit(BlockdRelease{tag, row->second.record.id, epoch});
    }
}

void MigrationAgent::commit_switch(const std::string& name, const Row<GuestRecord>& row, Source& source) {
    Txn txn;
    if (!switch_migration(context_, row, txn)) {
        // Too late to go back: its epoch is over here, and the destination cannot have it. It begins anew.
        return give_up(name, row, source, row.record.migration->node + " cannot take it any more");
    }
    if (!source.outstanding) finish_operation(source.operation, "", source.downtime_ms, txn);
    source.busy = true;
    source.switched_at = context_.now;
    source.repeat_at = context_.now + kRepeat;
    context_.commit(
        std::move(txn), false, true,
        [this, name, secret = source.secret, to = row.record.migration->node](const JobResult& result) {
            const auto at = sources_.find(name);
            if (at == sources_.end() || at->second.secret != secret) return;
            at->second.busy = false;
            if (!result.committed) return;
            at->second.switched = true;
            if (!at->second.outstanding) tell_end(at->second);
            at->second.switched_at = context_.now;
            context_.event("info", "vm.migrated", "vm/" + name,
                           "moved from " + context_.config.name + " to " + to);
        });
}

void MigrationAgent::finish_operation(const OperationId& operation, const std::string& error,
                                      std::uint32_t downtime_ms, Txn& txn) {
    const auto row = context_.gated.operations.find(operation.to_string());
    if (row == context_.gated.operations.end() || row->second.record.state != OperationState::running) return;
    OperationRecord next = row->second.record;
    next.state = error.empty() ? OperationState::succeeded : OperationState::failed;
    next.step.clear();
    next.error = error;
    if (!error.empty()) next.error_code = std::string(to_string(ErrorCode::failed_precondition));
    if (downtime_ms != 0) next.result["downtime_ms"] = std::to_string(downtime_ms);
    const std::string key = keys::operation(operation);
    context_.reads(txn, key, row->second);
    txn.puts.push_back({key, encode(next), 0});
}

// Switched before libvirt had answered: how long the guest paused is known only now.
void MigrationAgent::tell_end(const Source& source) {
    Txn txn;
    finish_operation(source.operation, "", source.downtime_ms, txn);
    if (!txn.puts.empty()) context_.commit(std::move(txn), false, false, nullptr);
}

void MigrationAgent::give_up(const std::string& name, const Row<GuestRecord>& row, Source& source,
                             const std::string& reason) {
    if (context_.now < source.repeat_at && source.told == reason) return;
    source.told = reason;
    source.repeat_at = context_.now + seconds(1);
    source.busy = true;
    Txn txn;
    close_migration(context_, row, txn);
    finish_operation(source.operation, name + " stays on " + context_.config.name + ": " + reason, 0, txn);
    context_.commit(
        std::move(txn), false, false, [this, name, secret = source.secret, reason](const JobResult& result) {
            const auto at = sources_.find(name);
            if (at != sources_.end() && at->second.secret == secret) at->second.busy = false;
            if (result.committed)
                context_.event("warning", "vm.migration-ended", "vm/" + name, "was not moved: " + reason);
        });
}

void MigrationAgent::arrived(const std::string& from, const GuestArrived& message) {
    for (const auto& [name, row] : context_.gated.guests) {
        const auto& migration = row.record.migration;
        if (!migration || row.record.uuid != message.guest || migration->secret != message.secret ||
            migration->node != from || !mine(row.record))
            continue;
        const auto at = sources_.find(name);
        if (at == sources_.end() || at->second.secret != message.secret || at->second.arrived) return;
        at->second.arrived = true;
        context_.log("info", "vm/" + name + ": runs on " + from + " now");
    }
}

void MigrationAgent::progress(const MigrationProgress& progress) {
    constexpr Duration kTellEvery = seconds(2);
    for (auto& [name, source] : sources_) {
        const auto row = context_.gated.guests.find(name);
        if (row == context_.gated.guests.end() || row->second.record.uuid != progress.uuid) continue;
        const auto operation = context_.gated.operations.find(source.operation.to_string());
        if (!row->second.record.migration || operation == context_.gated.operations.end() ||
            context_.now < source.told_at + kTellEvery || progress.total_bytes == 0)
            return;
        const auto done = progress.total_bytes - std::min(progress.total_bytes, progress.remaining_bytes);
        const std::string text = "copying memory to " + row->second.record.migration->node + ": " +
                                 std::to_string(done * 100 / progress.total_bytes) + " % of " +
                                 std::to_string(progress.total_bytes >> 20) + " MiB, " +
                                 std::to_string(progress.bytes_per_second >> 20) + " MiB/s";
        if (operation->second.record.step == text) return;
        source.told_at = context_.now;
        OperationRecord next = operation->second.record;
        next.step = text;
        Txn txn;
        const std::string key = keys::operation(source.operation);
        context_.reads(txn, key, operation->second);
        txn.puts.push_back({key, encode(next), 0});
        context_.commit(std::move(txn), false, false, nullptr);
    }
}

// ---- destination

void MigrationAgent::destination(const std::string& name, const Row<GuestRecord>& row) {
    const GuestRecord& guest = row.record;
    const MigrationRecord& migration = *guest.migration;
    auto& destination = destinations_[name];
    if (destination.secret != migration.secret) {
        destination = {};
        destination.secret = migration.secret;
    }
    if (destination.busy) return;
    const DomainView* here = context_.domain(guest.uuid);
    if (migration.phase == MigrationPhase::preparing) {
        if (here != nullptr && context_.now >= destination.repeat_at) {
            destination.repeat_at = context_.now + seconds(5);
            context_.destroy_domain(guest.uuid, "left over from an earlier migration");
        }
        if (here != nullptr || !context_.domains_known) return;
        if (destination.address.empty()) return open_gate(name, guest, destination);
        if (context_.now >= destination.repeat_at) commit_prepared(name, row, destination);
        return;
    }
    // Begun by libvirt when all of its state has arrived, and not before.
    const bool runs = here != nullptr && here->state == DomainState::running;
    destination.ran = here != nullptr && (destination.ran || runs);
    if (runs && !std::exchange(destination.guarded, true)) guard_it(guest);
    if (!destination.ran || context_.now < destination.repeat_at) return;
    destination.repeat_at = context_.now + kRepeat;
    peers_.send(guest.placement->node, GuestArrived{guest.uuid, migration.secret});
}

// It runs here before its leases do, for a stated time: the source may have been resumed as well (L5), and
// whoever would have to end that may be away.
void MigrationAgent::guard_it(const GuestRecord& guest) {
    GuardRegister guarded{guest.uuid, guest.name, {}, false, true};
    for (const auto& disk : guest.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end() || !volume->second.record.handover) continue;
        const VolumeRecord& record = volume->second.record;
        guarded.volumes.push_back({record.name, record.id, record.handover->epoch});
    }
    context_.emit(std::move(guarded));
}

void MigrationAgent::open_gate(const std::string& name, const GuestRecord& guest, Destination& destination) {
    if (context_.now < destination.repeat_at) return;
    for (const auto& disk : guest.disks) {
        const auto volume = context_.gated.volumes.find(disk.volume);
        if (volume == context_.gated.volumes.end() || !volume->second.record.handover) return;
        const auto facts = context_.volumes.find(volume->second.record.id);
        if (facts == context_.volumes.end() ||
            facts->second.view.incoming_epoch != volume->second.record.handover->epoch)
            return;
    }
    destination.busy = true;
    const Tag tag = context_.tag();
    context_.gate_waits[tag] = [this, name, secret = destination.secret](const GateDone& done) {
        const auto at = destinations_.find(name);
        if (at == destinations_.end() || at->second.secret != secret) return;
        at->second.busy = false;
        if (done.ok) {
            at->second.address = done.address;
        } else {
            at->second.repeat_at = context_.now + seconds(1);
            context_.log("warning", "vm/" + name + ": cannot be taken here: " + done.address);
        }
    };
    context_.emit(OpenGate{tag, guest.uuid, destination.secret});
}

void MigrationAgent::commit_prepared(const std::string& name, const Row<GuestRecord>& row,
                                     Destination& destination) {
    GuestRecord next = row.record;
    next.migration->phase = MigrationPhase::prepared;
    next.migration->gate = destination.address;
    Txn txn;
    context_.reads(txn, keys::guest(name), row);
    txn.puts.push_back({keys::guest(name), encode(next), 0});
    destination.busy = true;
    destination.repeat_at = context_.now + kRepeat;
    context_.commit(std::move(txn), false, false,
                    [this, name, secret = destination.secret](const JobResult&) {
                        const auto at = destinations_.find(name);
                        if (at != destinations_.end() && at->second.secret == secret) at->second.busy = false;
                    });
}

}  // namespace gemel::cluster
