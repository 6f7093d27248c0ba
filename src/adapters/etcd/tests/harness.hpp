// Real etcd members on loopback ports, each with its own state directory, all stopped at the end.
#pragma once

#include <functional>
#include <memory>
#include <signal.h>
#include <string>
#include <vector>

#include "adapters/etcd/client.hpp"
#include "adapters/etcd/process.hpp"
#include "adapters/etcd/store_directory.hpp"
#include "adapters/http/tests/pki.hpp"

namespace gemel::testing {

class StoreMember {
  public:
    StoreMember(const std::filesystem::path& root, const std::string& name, http::TlsFiles tls);
    ~StoreMember();
    StoreMember(const StoreMember&) = delete;
    StoreMember& operator=(const StoreMember&) = delete;

    etcd::Process process() const { return {config, directory.data(), directory.log()}; }
    std::unique_ptr<etcd::Client> client() const;
    http::Address address() const { return *http::Address::parse(config.client_url); }
    void kill() const;  // SIGKILL, and gone

    etcd::ProcessConfig config;
    std::filesystem::path state;
    etcd::StoreDirectory directory;
};

class StoreCluster {
  public:
    explicit StoreCluster(int members);
    StoreMember& member(std::size_t index) { return *members_.at(index); }
    std::string initial_cluster() const;
    // One client of all members, tried in order.
    std::unique_ptr<etcd::Client> client() const;
    void start_all();
    TestPki& pki() { return pki_; }
    const std::filesystem::path& root() const { return scratch_.path(); }

  private:
    ScratchDirectory scratch_;
    TestPki pki_;
    std::vector<std::unique_ptr<StoreMember>> members_;
};

// Asks again until it is true, at most `timeout`.
bool eventually_impl(Duration timeout, const std::function<bool()>& condition);
template <typename Condition>
bool eventually(Duration timeout, Condition condition) {
    return eventually_impl(timeout, condition);
}

}  // namespace gemel::testing
