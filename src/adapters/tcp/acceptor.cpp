#include "adapters/tcp/acceptor.hpp"

#include <cerrno>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include "base/invariant.hpp"

namespace gemel::tcp {

Acceptor::Acceptor(ring::Reactor& reactor, int listener, std::function<void(int)> accepted)
    : reactor_(reactor),
      listener_(listener),
      accepted_(std::move(accepted)),
      again_(reactor, [this] { start(); }) {}

Acceptor::~Acceptor() {
    INVARIANT(!busy_, "an acceptor is destroyed after it stopped");
    ::close(listener_);
}

void Acceptor::start() {
    if (busy_ || stopping_) return;
    busy_ = true;
    reactor_.accept(listener_, *this);
}

void Acceptor::stop(std::function<void()> stopped) {
    stopping_ = true;
    again_.disarm();
    // Who connects from now on is refused at once, instead of waiting in a queue that nobody empties.
    ::shutdown(listener_, SHUT_RDWR);
    if (!busy_) {
        if (stopped) reactor_.post(std::move(stopped));
        return;
    }
    stopped_ = std::move(stopped);
    reactor_.cancel(*this);
}

void Acceptor::on_complete(std::int32_t result, std::uint32_t) {
    busy_ = false;
    if (stopping_) {
        if (result >= 0) ::close(result);
        if (auto stopped = std::exchange(stopped_, nullptr)) stopped();
        return;
    }
    if (result >= 0) {
        start();
        accepted_(result);
        return;
    }
    if (result == -ECONNABORTED || result == -EINTR || result == -EAGAIN) return start();
    again_.arm(reactor_.now() + milliseconds(200));
}

}  // namespace gemel::tcp
