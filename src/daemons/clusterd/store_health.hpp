// Looks at the store's members from outside, twice a second: does our own process run and answer, who leads,
// who are the members and which of them answer on their client address. A member that failed a call is asked
// for a linearizable read, and is taken back into use when it serves one. Nothing else is decided here.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "adapters/etcd/client.hpp"
#include "adapters/etcd/process.hpp"
#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"

namespace gemel::clusterd {

class StoreHealthProbe {
  public:
    StoreHealthProbe(const Settings& settings, etcd::Process process, std::string log_file,
                     std::shared_ptr<etcd::MemberList> members,
                     std::function<void(const cluster::StoreHealth&)> report);
    ~StoreHealthProbe();
    StoreHealthProbe(const StoreHealthProbe&) = delete;
    StoreHealthProbe& operator=(const StoreHealthProbe&) = delete;
    void look_now();  // any thread

  private:
    void run();
    cluster::StoreHealth look();
    Result<etcd::MemberStatus> status_of(const std::string& client_url);
    void try_again_those_that_failed();

    const Settings& settings_;
    etcd::Process process_;
    std::string log_file_;
    std::shared_ptr<etcd::MemberList> in_use_;
    std::function<void(const cluster::StoreHealth&)> report_;
    std::map<std::string, std::unique_ptr<etcd::Client>> clients_;  // by URL; probe's thread
    std::vector<etcd::Member> members_;                             // as last listed
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    bool now_ = false;
    std::thread thread_;
};

}  // namespace gemel::clusterd
