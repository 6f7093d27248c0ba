// FrontEnd: the sockets of one lease epoch of one volume, run_dir/<protocol>/<volume>-<epoch>-<secret>.sock,
// one for each door. Accepts connections of the one process that owns the front-end session
// (client_binding.hpp); all its connections see one volume. Opened when the engine says serve, closed when
// the epoch is over: then connections end, and so do the paths. Promise: nobody but the bound process reads
// or writes (H33). One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/front/client_binding.hpp"
#include "adapters/front/connection.hpp"
#include "adapters/tcp/acceptor.hpp"

namespace gemel::front {

struct FrontEndOptions {
    std::string run_dir;  // directories in it are made when absent (0711: the name is the secret)
    std::string volume;
    std::uint64_t epoch = 0;
    std::string secret;
    bool successors = false;  // an export for tools: one process after the other
    std::vector<Door> doors;  // at least one
    std::function<void(const std::string& line)> log;
    std::function<void(pid_t pid)> bound;  // the owning process is known (again)
};

class FrontEnd {
  public:
    static Result<std::unique_ptr<FrontEnd>> open(ring::Reactor& reactor, FrontEndOptions options);
    ~FrontEnd();
    FrontEnd(const FrontEnd&) = delete;
    FrontEnd& operator=(const FrontEnd&) = delete;

    // of the first door
    const std::string& path() const { return entrances_.front().path; }
    std::uint64_t epoch() const { return options_.epoch; }
    pid_t client() const { return binding_.pid(); }

    // Stops accepting and ends all connections; `closed` runs (later) when nothing of it is under way any
    // more. forget: the epoch is over for good: remove the sockets and the binding. Otherwise they stay for a
    // restart.
    void close(bool forget, std::function<void()> closed);

  private:
    struct Entrance {
        std::string path;
        std::unique_ptr<tcp::Acceptor> acceptor;
        std::vector<std::unique_ptr<Connection>> connections;
    };

    FrontEnd(ring::Reactor& reactor, FrontEndOptions options);
    std::string path_of(const Door& door) const;
    Status listen();
    void accepted(std::size_t door, int fd);
    Status admit(std::size_t door, int fd);
    void ended(std::size_t door, Connection& connection);
    bool in_use() const;
    void closed_if_idle();

    ring::Reactor& reactor_;
    FrontEndOptions options_;
    ClientBinding binding_;
    std::vector<Entrance> entrances_;  // as the doors
    bool closing_ = false;
    std::function<void()> closed_;
};

}  // namespace gemel::front
