// LinkListener: takes connections of other nodes' blockds on one link address, looks at the hello without
// consuming it and hands the descriptor to the volume it names. A volume that is not attached here is refused
// with a reason. A connection that says nothing for five seconds is closed; at most kMaxWaiting are looked at
// at once.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/ring/reactor.hpp"
#include "adapters/tcp/acceptor.hpp"
#include "core/link/wire.hpp"

namespace gemel::blockd {

class LinkListener {
  public:
    // route: takes the descriptor and returns true, or leaves it
    using Route = std::function<bool(const VolumeId& volume, int fd)>;
    static constexpr std::size_t kMaxWaiting = 64;

    static Result<std::unique_ptr<LinkListener>> open(ring::Reactor& reactor, const std::string& address,
                                                      Route route,
                                                      std::function<void(const std::string&)> log);
    ~LinkListener();
    LinkListener(const LinkListener&) = delete;
    LinkListener& operator=(const LinkListener&) = delete;
    void stop();

  private:
    class Guest;
    LinkListener(ring::Reactor& reactor, int listener, Route route,
                 std::function<void(const std::string&)> log);
    void accepted(int fd);
    void done(Guest& guest, const std::string& problem);

    ring::Reactor& reactor_;
    Route route_;
    std::function<void(const std::string&)> log_;
    tcp::Acceptor acceptor_;
    std::vector<std::unique_ptr<Guest>> guests_;
};

}  // namespace gemel::blockd
