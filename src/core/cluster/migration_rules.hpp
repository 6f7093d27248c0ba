// What a live migration writes, and when it may begin: pure functions of the committed tables.
// docs/design/0011-live-migration.md. Not here: who does what when (migration_agent.hpp).
#pragma once

#include <functional>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/store.hpp"

namespace gemel::cluster {

// Empty: the guest may move to `node` now. Otherwise why not, one line with what to do.
std::string migration_refusal(const Tables& tables, const GuestRecord& guest, const std::string& node,
                              const std::function<bool(const std::string&)>& alive);
// The node that could take it now; empty: none, and `why` says it of each.
std::string migration_target(const Tables& tables, const GuestRecord& guest,
                             const std::function<bool(const std::string&)>& alive, std::string& why);

// Guest and volumes with the migration and its handover grants, compared and put into `txn`. `migration` has
// the destination's name and the options; the rest is filled in. Precondition: migration_refusal() is empty.
void open_migration(Context& context, const Row<GuestRecord>& guest, MigrationRecord migration, Txn& txn);
// As if it had never been: guest and volumes without it; owner, epoch and placement stay.
void close_migration(const Context& context, const Row<GuestRecord>& guest, Txn& txn);
// The switch: destination is owner and placement. False: a volume is not as the migration expects it.
bool switch_migration(const Context& context, const Row<GuestRecord>& guest, Txn& txn);

}  // namespace gemel::cluster
