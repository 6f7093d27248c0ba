// Acceptor: takes connections of one listening socket (TCP or unix) for as long as it is open. Each
// descriptor is the handler's from then on. stop() ends it; it may be destroyed when stopped() is true. One
// thread.
#pragma once

#include <functional>

#include "adapters/ring/reactor.hpp"

namespace gemel::tcp {

class Acceptor final : private ring::Completion {
  public:
    // takes the listening descriptor
    Acceptor(ring::Reactor& reactor, int listener, std::function<void(int fd)> accepted);
    ~Acceptor() override;
    Acceptor(const Acceptor&) = delete;
    Acceptor& operator=(const Acceptor&) = delete;

    void start();
    // `stopped` runs when the kernel has let go; may be empty
    void stop(std::function<void()> stopped);
    bool stopped() const { return !busy_; }

  private:
    void on_complete(std::int32_t result, std::uint32_t flags) override;

    ring::Reactor& reactor_;
    int listener_;
    std::function<void(int)> accepted_;
    std::function<void()> stopped_;
    ring::Timer again_;  // after a failure such as "too many open files"
    bool busy_ = false;
    bool stopping_ = false;
};

}  // namespace gemel::tcp
