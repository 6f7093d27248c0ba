// The other clusterds: messages of the machine over every path, each known by its certificate.
#pragma once

#include <map>
#include <memory>

#include "adapters/heartbeat/peer_channel.hpp"
#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {

class PeerDriver {
  public:
    PeerDriver(const Settings& settings, Sink sink);
    Status start() { return channel_.start(); }
    void handle(const cluster::PeerSend& order);
    // -1: unknown
    std::int64_t round_trip_us(const std::string& peer, const std::string& path) const {
        return channel_.round_trip_us(peer, path);
    }

  private:
    heartbeat::PeerChannel channel_;
};

}  // namespace gemel::clusterd
