// FrontEnd: the NBD socket of one lease epoch of one volume: run_dir/nbd/<volume>-<epoch>-<secret>.sock.
// Accepts connections of the one process that owns the front-end session (client_binding.hpp); all its
// connections see one volume (multi-conn). Opened when the engine says serve, closed when the epoch is over:
// then connections end, and so does the path. Promise: nobody but the bound process reads or writes (H33).
// One thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/nbd_socket/client_binding.hpp"
#include "adapters/nbd_socket/connection.hpp"
#include "adapters/tcp/acceptor.hpp"

namespace gemel::nbd_socket {

struct FrontEndOptions {
    std::string directory;  // run_dir/nbd; made when absent (0711: the name is the secret)
    std::string volume;
    std::uint64_t epoch = 0;
    std::string secret;
    bool successors = false;  // an export for tools: one process after the other
    nbd::Export exported;
    std::function<void(const std::string& line)> log;
    std::function<void(pid_t pid)> bound;  // the owning process is known (again)
};

class FrontEnd {
  public:
    static constexpr std::size_t kMaxConnections = 16;

    static Result<std::unique_ptr<FrontEnd>> open(ring::Reactor& reactor, BlockService& service,
                                                  FrontEndOptions options);
    ~FrontEnd();
    FrontEnd(const FrontEnd&) = delete;
    FrontEnd& operator=(const FrontEnd&) = delete;

    const std::string& path() const { return path_; }
    std::uint64_t epoch() const { return options_.epoch; }
    pid_t client() const { return binding_.pid(); }

    // Stops accepting and ends all connections; `closed` runs (later) when nothing of it is under way any
    // more. forget: the epoch is over for good: remove the socket and the binding. Otherwise they stay for a
    // restart.
    void close(bool forget, std::function<void()> closed);

  private:
    FrontEnd(ring::Reactor& reactor, BlockService& service, FrontEndOptions options, std::string path,
             int listener);
    void accepted(int fd);
    void ended(Connection& connection);
    void closed_if_idle();

    ring::Reactor& reactor_;
    BlockService& service_;
    FrontEndOptions options_;
    std::string path_;
    ClientBinding binding_;
    tcp::Acceptor acceptor_;
    std::vector<std::unique_ptr<Connection>> connections_;
    bool closing_ = false;
    std::function<void()> closed_;
};

}  // namespace gemel::nbd_socket
