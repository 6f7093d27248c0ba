// Connector: tries to reach an address again and again until a connection stands, hands it over and rests
// until it is asked for the next. Attempts are bounded by a time limit and spaced (250 ms). One thread.
#pragma once

#include <functional>
#include <string>

#include "adapters/ring/reactor.hpp"
#include "adapters/tcp/address.hpp"

namespace gemel::tcp {

class Connector final : private ring::Completion {
  public:
    // failed: a line for the log, said once per series of failures
    Connector(ring::Reactor& reactor, std::string address, std::function<void(int fd)> connected,
              std::function<void(const std::string&)> failed);
    ~Connector() override;
    Connector(const Connector&) = delete;
    Connector& operator=(const Connector&) = delete;

    // From `delay` from now on, until connected.
    void start(Duration delay);
    void stop(std::function<void()> stopped);
    bool resting() const { return !wanted_; }

  private:
    static constexpr Duration kSpacing = milliseconds(250);
    static constexpr Duration kAttempt = milliseconds(2000);

    void attempt();
    void failed(const std::string& why);
    void on_complete(std::int32_t result, std::uint32_t flags) override;

    ring::Reactor& reactor_;
    std::string name_;
    std::function<void(int)> connected_;
    std::function<void(const std::string&)> failed_;
    std::function<void()> stopped_;
    ring::Timer next_;
    ring::Timer limit_;
    Address address_;
    int fd_ = -1;
    bool wanted_ = false;
    bool stopping_ = false;
    bool complained_ = false;
};

}  // namespace gemel::tcp
