// Live migration's outside: the gate of a destination, and libvirt's call, which takes as long as the copy
// does, at a source. One thread for each guest that moves away, at most kMaxMoves of them; answers are
// posted. A daemon that ends takes gate and tunnels with it: libvirt then gives up by itself and the guest
// goes on where it was.
#pragma once

#include <memory>

#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {

class MigrationDriver {
  public:
    static constexpr std::size_t kMaxMoves = 8;

    MigrationDriver(const Settings& settings, Sink sink);
    ~MigrationDriver();  // waits for libvirt, whose jobs it cancels
    MigrationDriver(const MigrationDriver&) = delete;
    MigrationDriver& operator=(const MigrationDriver&) = delete;

    void handle(const cluster::OpenGate& order);
    void handle(const cluster::CloseGate& order);
    void handle(const cluster::MigrateDomain& order);
    void handle(const cluster::CancelMigration& order);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::clusterd
