#include "adapters/tcp/connector.hpp"

#include <cstring>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::tcp {

Connector::Connector(ring::Reactor& reactor, std::string address, std::function<void(int)> connected,
                     std::function<void(const std::string&)> failed)
    : reactor_(reactor),
      name_(std::move(address)),
      connected_(std::move(connected)),
      failed_(std::move(failed)),
      next_(reactor, [this] { attempt(); }),
      limit_(reactor, [this] { reactor_.cancel(*this); }) {}

Connector::~Connector() {
    INVARIANT(fd_ < 0, "a connector is destroyed after it stopped");
}

void Connector::start(Duration delay) {
    if (wanted_ || stopping_) return;
    wanted_ = true;
    next_.arm(reactor_.now() + delay);
}

void Connector::attempt() {
    const auto address = resolve(name_, false);
    if (!address) return failed(address.error().message);
    const auto fd = make_socket(*address);
    if (!fd) return failed(fd.error().message);
    address_ = *address;
    fd_ = *fd;
    limit_.arm(reactor_.now() + kAttempt);
    reactor_.connect(fd_, address_.generic(), address_.length, *this);
}

void Connector::failed(const std::string& why) {
    if (!std::exchange(complained_, true)) failed_(why);
    next_.arm(reactor_.now() + kSpacing);
}

void Connector::on_complete(std::int32_t result, std::uint32_t) {
    limit_.disarm();
    const int fd = std::exchange(fd_, -1);
    if (stopping_ || result != 0) ::close(fd);
    if (stopping_) {
        if (auto stopped = std::exchange(stopped_, nullptr)) stopped();
        return;
    }
    if (result != 0) return failed(fmt::format("cannot reach {}: {}", name_, std::strerror(-result)));
    complained_ = false;
    wanted_ = false;
    connected_(fd);
}

void Connector::stop(std::function<void()> stopped) {
    stopping_ = true;
    next_.disarm();
    if (fd_ < 0) {
        if (stopped) reactor_.post(std::move(stopped));
        return;
    }
    stopped_ = std::move(stopped);
    reactor_.cancel(*this);
}

}  // namespace gemel::tcp
