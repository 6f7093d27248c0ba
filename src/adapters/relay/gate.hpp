// MigrationGate: where a destination takes a guest's memory and libvirt's words from its source, on TCP ports
// of its own. A connection begins with one line
//     gemel-migration <guest uuid> <secret> libvirt|qemu\n
// and is answered "ok\n" and relayed to libvirtd's socket, or to the socket on which the guest's waiting QEMU
// listens; or it is closed. Only doors that were opened answer, and only to who knows the migration's secret
// (which the cluster's store holds). Not encrypted: links are private networks until replication has TLS.
// Threads: its own; calls on any, close() and the destructor wait for what they end.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "adapters/relay/pump.hpp"

namespace gemel::relay {

class MigrationGate {
  public:
    static constexpr std::size_t kMaxConnections = 32;
    static constexpr std::size_t kMaxLine = 160;

    // hosts: local addresses, numbers without port. Error: unavailable, none of them can be listened on.
    static Result<std::unique_ptr<MigrationGate>> open_on(const std::vector<std::string>& hosts,
                                                          std::string libvirt_socket);
    ~MigrationGate();
    MigrationGate(const MigrationGate&) = delete;
    MigrationGate& operator=(const MigrationGate&) = delete;

    // address:port of every host it listens on, separated by commas
    const std::string& addresses() const { return addresses_; }
    void open(const std::string& guest, const std::string& secret, const std::string& qemu_socket);
    void close(const std::string& guest);  // its connections end

  private:
    struct Door {
        std::string secret;
        std::string qemu_socket;
    };
    struct Guest {  // one connection
        std::string uuid;
        std::unique_ptr<Pump> pump;
    };
    explicit MigrationGate(std::string libvirt_socket);
    void run();
    void greet(OwnedFd client);
    void drop_ended();
    std::string target(const std::string& line, std::string& uuid);

    std::string libvirt_socket_;
    std::string addresses_;
    std::vector<OwnedFd> listening_;
    OwnedFd stop_;
    std::mutex mutex_;
    std::map<std::string, Door> doors_;
    std::list<Guest> guests_;
    std::thread thread_;
};

}  // namespace gemel::relay
