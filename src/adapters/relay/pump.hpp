// Pump: the bytes of two stream sockets, both ways, until both directions have ended. A direction that ends
// is ended on the other socket too (half-close); an error ends both. splice(2) through a pipe, so that a
// guest's memory is not copied through this process. Two threads for each pump: guests move rarely, and few
// at a time. The process ignores SIGPIPE
// (splice knows no other way not to be ended by it). Threads: made and destroyed on one; ended() and stop()
// on any.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "adapters/system/owned_fd.hpp"
#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::relay {

class Pump {
  public:
    Pump(OwnedFd left, OwnedFd right);
    ~Pump();  // stops
    Pump(const Pump&) = delete;
    Pump& operator=(const Pump&) = delete;
    bool ended() const { return running_ == 0; }
    void stop();

  private:
    void run(int from, int to);
    OwnedFd left_;
    OwnedFd right_;
    std::atomic<int> running_{2};
    std::thread forth_;
    std::thread back_;
};

// Error: unavailable, one line that names the path.
Result<OwnedFd> connect_unix(const std::string& path);
Result<OwnedFd> listen_unix(const std::string& path);
// With keep-alives and a bound on unacknowledged data: a dead peer is noticed within about 10 s.
Result<OwnedFd> connect_tcp(const std::string& address, std::chrono::milliseconds timeout);
void tune_tcp(int fd);
bool write_all(int fd, const std::string& text);
// Up to and without the newline; error where it is longer, does not come in time, or ends before. Reads
// nothing that follows it.
Result<std::string> read_line(int fd, std::size_t limit, std::chrono::milliseconds timeout);

}  // namespace gemel::relay
