// Forcing a single member (design brief 3.4): on a copy of the stopped data directory, whose first commit is
// the new lineage. Nothing of it is visible before activate(); the old directory is untouched until then.
// The flag exists only on the command line of the process that works on the copy. Blocking; one thread.
#pragma once

#include "adapters/etcd/messages.hpp"
#include "adapters/etcd/process.hpp"
#include "adapters/etcd/store_directory.hpp"

namespace gemel::etcd {

// The member must not be running. Leaves a stopped, forced copy with `first_commit` in it. An error leaves no
// copy.
Status force_prepare(const StoreDirectory& directory, const ProcessConfig& config,
                     const Transaction& first_commit);
// What a member knew to be committed when it was copied (directory.make_copy(), while it was stopped): a
// member that has been started but has not met a quorum in its life answers nobody. The copy is deleted.
Result<RangeResult> read_copy(const StoreDirectory& directory, const ProcessConfig& config,
                              const std::string& prefix);
// Puts the copy in place; the old directory is renamed and kept.
Status force_activate(const StoreDirectory& directory);

}  // namespace gemel::etcd
