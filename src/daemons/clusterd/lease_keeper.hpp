// Keeps the election's etcd lease alive until it is revoked or lost. One lease at a time; a new one replaces
// the old. Callbacks come from the keeper's thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "adapters/etcd/client.hpp"

namespace gemel::clusterd {

class LeaseKeeper {
  public:
    LeaseKeeper(const etcd::ClientOptions& client, std::function<void(std::uint64_t)> on_lost);
    ~LeaseKeeper();
    LeaseKeeper(const LeaseKeeper&) = delete;
    LeaseKeeper& operator=(const LeaseKeeper&) = delete;

    // Answers with the id, 0 when it could not be had. A request that comes while one is open replaces it.
    void grant(std::uint32_t ttl_s, std::function<void(std::uint64_t)> on_granted);
    void revoke(std::uint64_t id);

  private:
    void run();
    void keep(std::unique_lock<std::mutex>& lock);

    etcd::Client client_;
    std::function<void(std::uint64_t)> on_lost_;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    std::uint32_t wanted_ttl_s_ = 0;  // 0: no request open
    std::function<void(std::uint64_t)> on_granted_;
    std::uint64_t revoke_ = 0;  // to be revoked
    std::uint64_t held_ = 0;
    std::uint32_t ttl_s_ = 0;
    std::thread thread_;
};

}  // namespace gemel::clusterd
