// A guest's domain as libvirt is given it: from its record, its template and the disks of one lease epoch.
// The paths in it are the same on every node (run_dir is), so that it also describes the domain at a
// destination.
#pragma once

#include <string>
#include <vector>

#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"

namespace gemel::clusterd {

struct DescribedDomain {
    std::string xml;
    std::vector<std::string> sockets;  // of the disks' front ends
};
// Any thread. Probes for KVM when it was not probed in this boot yet (up to 5 s).
Result<DescribedDomain> describe_domain(const Settings& settings, const GuestRecord& guest,
                                        const std::vector<cluster::DomainDisk>& disks);

}  // namespace gemel::clusterd
