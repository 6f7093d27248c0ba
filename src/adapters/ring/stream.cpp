#include "adapters/ring/stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unistd.h>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::ring {

Stream::Stream(Reactor& reactor, StreamOwner& owner, int fd, std::size_t head_bytes, std::size_t max_segments)
    : reactor_(reactor),
      owner_(owner),
      fd_(fd),
      receiving_(*this, &Stream::receive_done),
      sending_(*this, &Stream::send_done),
      heads_(head_bytes),
      segments_(max_segments) {}

Stream::~Stream() {
    INVARIANT(!receiving_.busy && !sending_.busy, "a stream is destroyed after on_closed");
    while (!segments_.empty()) {
        const Segment segment = segments_.pop();
        if (segment.payload != kNoPayload) reactor_.buffers().release(segment.payload);
    }
    ::close(fd_);
}

// ---- receiving ----

void Stream::start_receive(std::span<std::byte> memory, bool all) {
    if (state_ != State::open) return;
    INVARIANT(!receiving_.busy && !memory.empty(), "one receive at a time, into some memory");
    receive_memory_ = memory;
    receive_at_ = 0;
    receive_all_ = all;
    receiving_.busy = true;
    reactor_.receive(fd_, memory, all ? MSG_WAITALL : 0, receiving_);
}

void Stream::receive_done(std::int32_t result) {
    if (state_ != State::open) return finish_if_idle();
    if (result == -EINTR || result == -EAGAIN)
        result = 0;  // nothing yet: ask again
    else if (result == 0)
        return broken("closed by the other side");
    else if (result < 0)
        return broken(std::strerror(-result));
    receive_at_ += static_cast<std::size_t>(result);
    const bool enough = receive_all_ ? receive_at_ == receive_memory_.size() : receive_at_ > 0;
    if (enough) return owner_.on_received(receive_at_);
    receiving_.busy = true;
    reactor_.receive(fd_, receive_memory_.subspan(receive_at_), receive_all_ ? MSG_WAITALL : 0, receiving_);
}

// ---- sending ----

bool Stream::push_head(std::span<const std::byte> head) {
    if (heads_used_ == 0) heads_first_ = 0;
    const std::size_t room = heads_.size() - heads_used_;
    const std::size_t end = (heads_first_ + heads_used_) % heads_.size();
    std::size_t padding = 0;
    if (end >= heads_first_ && heads_.size() - end < head.size()) {
        padding = heads_.size() - end;  // does not fit before the wrap: leave that part unused
    }
    if (room < padding + head.size()) return false;
    const std::size_t at = padding > 0 ? 0 : end;
    std::memcpy(heads_.data() + at, head.data(), head.size());
    heads_used_ += padding + head.size();
    return segments_.push(Segment{heads_.data() + at, head.size(), kNoPayload, padding + head.size()});
}

bool Stream::send(std::span<const std::byte> head) {
    if (state_ != State::open || segments_.size() + 1 > segments_.capacity() || head.empty()) return false;
    tell_drained_ = true;
    if (!push_head(head)) return false;
    unsent_bytes_ += head.size();
    schedule();
    return true;
}

bool Stream::send(std::span<const std::byte> head, BufferPool::Handle payload, std::size_t payload_bytes) {
    if (payload_bytes == 0) return send(head);
    if (state_ != State::open) return false;
    tell_drained_ = true;
    if (segments_.size() + 2 > segments_.capacity()) return false;
    const auto memory = reactor_.buffers().memory(payload);
    INVARIANT(payload_bytes <= memory.size(), "a payload lies inside its piece");
    if (!head.empty() && !push_head(head)) return false;
    reactor_.buffers().retain(payload);
    const bool pushed = segments_.push(Segment{memory.data(), payload_bytes, payload, 0});
    INVARIANT(pushed, "room was checked");
    unsent_bytes_ += head.size() + payload_bytes;
    schedule();
    return true;
}

void Stream::schedule() {
    deferred_ = true;
    reactor_.defer(*this);
}

void Stream::run_deferred() {
    deferred_ = false;
    if (state_ == State::ending) return finish_if_idle();
    if (state_ != State::open || sending_.busy || segments_.empty()) return;
    if (unsent_bytes_ <= kDirectBytes) {
        send_directly();
    } else {
        start_send();
    }
}

// Little is sent at once: the other side begins while this turn's disk requests are still being handed to the
// kernel, and no completion has to be fetched. What does not fit into the socket goes the long way.
void Stream::send_directly() {
    gather();
    const ssize_t result = ::sendmsg(fd_, &message_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0 && errno != EAGAIN && errno != EINTR) return broken(std::strerror(errno));
    after_send(result < 0 ? 0 : static_cast<std::size_t>(result));
}

void Stream::gather() {
    std::size_t count = 0;
    while (count < kMaxVectors && count < segments_.size()) {
        const Segment& segment = segments_.at(count);
        vectors_[count++] = {const_cast<std::byte*>(segment.data), segment.size};
    }
    message_.msg_iov = vectors_.data();
    message_.msg_iovlen = count;
}

void Stream::start_send() {
    gather();
    sending_.busy = true;
    reactor_.send(fd_, message_, MSG_NOSIGNAL | MSG_WAITALL, sending_);
}

void Stream::send_done(std::int32_t result) {
    if (state_ != State::open) return finish_if_idle();
    if (result < 0 && result != -EINTR && result != -EAGAIN) return broken(std::strerror(-result));
    after_send(result < 0 ? 0 : static_cast<std::size_t>(result));
}

void Stream::after_send(std::size_t bytes) {
    sent(bytes);
    if (!segments_.empty()) return start_send();
    if (tell_drained_) {
        tell_drained_ = false;
        owner_.on_drained();
    }
}

void Stream::sent(std::size_t bytes) {
    unsent_bytes_ -= bytes;
    while (bytes > 0) {
        Segment& first = segments_.front();
        const std::size_t part = std::min(bytes, first.size);
        first.data += part;
        first.size -= part;
        bytes -= part;
        if (first.size > 0) break;
        if (first.payload != kNoPayload) reactor_.buffers().release(first.payload);
        heads_first_ = (heads_first_ + first.head_bytes) % heads_.size();
        heads_used_ -= first.head_bytes;
        segments_.pop();
    }
}

// ---- the end ----

void Stream::broken(std::string_view reason) {
    end();
    owner_.on_broken(reason);
    finish_if_idle();
}

void Stream::close() {
    if (state_ != State::open) return;
    end();
    schedule();  // on_closed() never comes from inside the owner's own call
}

void Stream::end() {
    state_ = State::ending;
    ::shutdown(fd_, SHUT_RDWR);
    if (receiving_.busy) reactor_.cancel(receiving_);
    if (sending_.busy) reactor_.cancel(sending_);
}

void Stream::finish_if_idle() {
    if (state_ != State::ending || receiving_.busy || sending_.busy || deferred_) return;
    state_ = State::closed;
    owner_.on_closed();
}

}  // namespace gemel::ring
