// A member that the cluster has added comes up on an empty data directory. Blocking; one thread.
#pragma once

#include <string>

#include "adapters/etcd/process.hpp"
#include "adapters/etcd/store_directory.hpp"

namespace gemel::etcd {

// Starts it, and returns when it serves its clients or, at most five seconds later, when it has been started
// only: then it goes on by itself. etcd 3.4 takes down its connections to install the snapshot that it is
// sent by a store which was once forced; its own announcement is lost with them, and it serves nobody before
// it has repeated that, seven seconds later. Started again with the snapshot it announces itself at once.
Status join_store(const StoreDirectory& directory, const ProcessConfig& config,
                  const std::string& initial_cluster);

}  // namespace gemel::etcd
