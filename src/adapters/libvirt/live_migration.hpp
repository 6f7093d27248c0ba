// One live migration of a running domain, by libvirt, peer to peer, pre-copy: libvirtd here connects to the
// other libvirtd through a unix socket, QEMU's stream goes through a second one, and what is behind them (a
// tunnel) is not libvirt's business. Its own connections, since the call takes as long as the copy.
//
// What libvirt does when something dies: it tries to resume the domain here and to destroy the one there.
// Which of them has the right to go on is not decided here (core/cluster/migration_agent.hpp). Threads: run()
// on one; progress(), set_downtime() and cancel() on another.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/ids.hpp"

// libvirt's own name for what its header declares  NOLINTNEXTLINE(bugprone-reserved-identifier)
struct _virConnect;

namespace gemel {

struct MigrationWay {
    std::string libvirt_socket;  // leads to the destination's libvirtd
    std::string qemu_socket;     // same path on both hosts: there QEMU listens on it, here it leads there
    std::string domain_xml;      // of the destination: its disks' sockets have other names
    std::uint64_t bandwidth_bytes = 0;  // a second, rounded up to MiB; 0: no limit
    bool auto_converge = true;
};
struct CopyProgress {
    std::uint64_t total_bytes = 0;
    std::uint64_t remaining_bytes = 0;
    std::uint64_t bytes_per_second = 0;
};

class LiveMigration {
  public:
    // error unavailable: libvirtd does not answer
    static Result<std::unique_ptr<LiveMigration>> open(const std::string& uri = "qemu:///system");
    ~LiveMigration();
    LiveMigration(const LiveMigration&) = delete;
    LiveMigration& operator=(const LiveMigration&) = delete;

    // Returns when it is over. The pause of the guest in ms as QEMU measured it; 0: not told.
    Result<std::uint32_t> run(const GuestId& uuid, const MigrationWay& way);
    // Nothing: no copy is under way now.
    std::optional<CopyProgress> progress(const GuestId& uuid);
    Status set_downtime(const GuestId& uuid, std::uint32_t downtime_ms);  // while one is under way
    Status cancel(const GuestId& uuid);

  private:
    LiveMigration() = default;

    _virConnect* copying_ = nullptr;
    _virConnect* watching_ = nullptr;
    int registration_ = -1;
    // shared with libvirt's event thread
    std::shared_ptr<std::atomic<std::uint32_t>> downtime_ms_ =
        std::make_shared<std::atomic<std::uint32_t>>(0);
};

}  // namespace gemel
