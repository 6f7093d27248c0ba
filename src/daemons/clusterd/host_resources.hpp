// What this host has left: memory, space in its pools, and the bridges a guest's card can be plugged into.
#pragma once

#include <vector>

#include "core/cluster/peer_message.hpp"
#include "core/formats/records.hpp"

namespace gemel::clusterd {

cluster::HostResources host_resources(const std::vector<PoolRecord>& pools);

}  // namespace gemel::clusterd
