// MigrationTunnel: a source's way to one destination's gate, for one guest. It listens on two unix sockets in
// a directory of its own, libvirt.sock and qemu.sock, and relays whoever connects to the gate. libvirtd
// connects to both (it hands QEMU the open socket), so the directory is root's alone. Threads: its own;
// destroyed on the one that made it, which waits for what that ends.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>

#include "adapters/relay/pump.hpp"

namespace gemel::relay {

struct TunnelOptions {
    std::string directory;  // made; socket names in it must fit into 107 bytes
    std::string gate;       // address:port[,address:port...]: the first that can be connected to is taken
    std::string guest;      // uuid
    std::string secret;
};

class MigrationTunnel {
  public:
    // Error: unavailable, no address of the gate answers and takes the secret.
    static Result<std::unique_ptr<MigrationTunnel>> dig(TunnelOptions options);
    ~MigrationTunnel();
    MigrationTunnel(const MigrationTunnel&) = delete;
    MigrationTunnel& operator=(const MigrationTunnel&) = delete;

    std::string libvirt_socket() const { return options_.directory + "/libvirt.sock"; }
    std::string qemu_socket() const { return options_.directory + "/qemu.sock"; }

  private:
    explicit MigrationTunnel(TunnelOptions options) : options_(std::move(options)) {}
    void run();
    Result<OwnedFd> reach(const std::string& address, const char* what) const;
    void relay(const OwnedFd& listening, const char* what);

    TunnelOptions options_;
    std::string address_;  // the one that answered
    OwnedFd libvirt_;
    OwnedFd qemu_;
    OwnedFd stop_;
    std::list<Pump> pumps_;
    std::thread thread_;
};

}  // namespace gemel::relay
