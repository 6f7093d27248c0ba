// The etcd process of this node: started detached (own session, not our child), so that it outlives the
// daemon that started it, and found again by its data directory. All options are arguments; there is no
// configuration file in which an option could be left behind. Blocking calls; one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <sys/types.h>
#include <vector>

#include "adapters/http/address.hpp"
#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::etcd {

struct ProcessConfig {
    std::string program = "etcd";  // looked for in PATH
    std::string name;              // member's name = node's name
    std::string client_url;        // https://IP:PORT
    std::string peer_url;
    std::string cluster_token;  // cluster id: members of two clusters never mix
    http::TlsFiles tls;
    std::uint32_t heartbeat_ms = 100;
    std::uint32_t election_ms = 1000;
    std::uint64_t quota_bytes = 256ULL << 20;
};

// How the member comes to its membership.
struct Membership {
    std::string initial_cluster;  // name=peer_url,...; used only when there is no data yet
    bool existing = false;        // joins a running cluster that has already added it
};

class Process {
  public:
    Process(ProcessConfig config, std::filesystem::path data_directory, std::filesystem::path log);

    // The running etcd on this data directory, whoever started it; 0: none.
    pid_t find() const;
    // Starts it; running already: ok. Returns when the process has been started, not when it serves.
    Status start(const Membership& membership);
    // Ends it: SIGTERM, after `grace` SIGKILL. None running: ok. It is gone when this returns.
    Status stop(Duration grace);
    // On a copy only: single member, serving on loopback; client_url() says where.
    Status start_forced();
    const std::string& client_url() const { return config_.client_url; }

  private:
    std::vector<std::string> common_arguments() const;
    Status spawn(const std::vector<std::string>& arguments) const;
    ProcessConfig config_;
    std::filesystem::path data_;
    std::filesystem::path log_;
};

// The end of that log of a member says that the cluster removed it: etcd says so and ends, there is no other
// sign of it. No log: false.
bool says_removed(const std::filesystem::path& log);

}  // namespace gemel::etcd
