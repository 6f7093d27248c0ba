// StoreRenewer: blockd's own way of renewing leases, independent of clusterd: every third of a lease it reads
// this cluster's volume records linearizably and hands them over together with the instant the read was sent.
// What the records mean is the engine's business. Uses the node's certificate; without one (tests, a node not
// yet joined) it does not run and says so. One thread of its own. Not in it: writes of any kind.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "adapters/config/node_config.hpp"
#include "adapters/etcd/client.hpp"
#include "core/formats/volume_record.hpp"

namespace gemel::blockd {

class StoreRenewer {
  public:
    // called on the renewer's thread
    using Deliver = std::function<void(Instant sent_at, const std::vector<CommittedVolume>&)>;

    // null where the store cannot be spoken to; `why` says it
    static std::unique_ptr<StoreRenewer> create(const NodeConfig& config, Deliver deliver, std::string& why);
    ~StoreRenewer();
    StoreRenewer(const StoreRenewer&) = delete;
    StoreRenewer& operator=(const StoreRenewer&) = delete;

  private:
    StoreRenewer(etcd::ClientOptions options, Duration interval, Deliver deliver);
    void run();
    Status read_once();
    Result<LineageId> read_lineage();

    etcd::Client client_;
    Duration interval_;
    Deliver deliver_;
    std::mutex mutex_;
    std::condition_variable wakeup_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace gemel::blockd
