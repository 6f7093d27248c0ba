#include "daemons/clusterd/host_resources.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/statvfs.h>

namespace gemel::clusterd {
namespace {

// What can be had without swapping: free memory alone says little, caches give way.
std::uint64_t memory_available() {
    std::ifstream file("/proc/meminfo");
    std::string word;
    std::uint64_t kib = 0;
    while (file >> word) {
        if (word == "MemAvailable:" && file >> kib) return kib << 10;
    }
    return 0;
}

}  // namespace

cluster::HostResources host_resources(const std::vector<PoolRecord>& pools) {
    cluster::HostResources out;
    out.known = true;
    out.memory_free_bytes = memory_available();
    for (const auto& pool : pools) {
        struct statvfs space {};
        if (::statvfs(pool.path.c_str(), &space) == 0)
            out.pool_free_bytes[pool.name] = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
    }
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/sys/class/net", error)) {
        std::error_code ignored;
        if (std::filesystem::is_directory(entry.path() / "bridge", ignored))
            out.bridges.push_back(entry.path().filename().string());
    }
    std::sort(out.bridges.begin(), out.bridges.end());
    if (out.bridges.size() > cluster::HostResources::kMaxBridges)
        out.bridges.resize(cluster::HostResources::kMaxBridges);
    return out;
}

}  // namespace gemel::clusterd
