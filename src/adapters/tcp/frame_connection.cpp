#include "adapters/tcp/frame_connection.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::tcp {
namespace {

constexpr std::size_t kHeadRing = 256U << 10;
constexpr std::size_t kSegments = 2048;

}  // namespace

FrameConnection::FrameConnection(ring::Reactor& reactor, int fd, Handlers handlers)
    : reactor_(reactor),
      handlers_(std::move(handlers)),
      stream_(reactor, *this, fd, kHeadRing, kSegments),
      close_limit_(reactor, [this] { close(); }),
      input_(kInputBytes) {
    body_.reserve(256);
}

FrameConnection::~FrameConnection() {
    reactor_.buffers().stop_waiting(*this);
    if (payload_ != kNoPayload) reactor_.buffers().release(payload_);
    drop_queued();
}

void FrameConnection::start() {
    read_more();
}

// ---- receiving ----

void FrameConnection::read_more() {
    if (!stream_.is_open()) return;
    const std::size_t have = input_last_ - input_first_;
    if (input_first_ > 0) {
        std::memmove(input_.data(), input_.data() + input_first_, have);
        input_first_ = 0;
        input_last_ = have;
    }
    const std::size_t until = std::min(input_.size(), std::max(needed_, kUsualRead));
    stream_.receive(std::span(input_).subspan(input_last_, until - input_last_));
}

void FrameConnection::on_received(std::size_t bytes) {
    if (!in_payload_) {
        input_last_ += bytes;
        parse();
    } else if (payload_complete()) {
        parse();
    }
}

void FrameConnection::parse() {
    while (stream_.is_open() && parse_one()) {
    }
}

// false: waits for bytes, for a buffer, or is over
bool FrameConnection::parse_one() {
    const auto bytes = unread();
    if (bytes.size() < link::kHeaderBytes) {
        needed_ = link::kHeaderBytes;
        read_more();
        return false;
    }
    const auto header = link::decode_header(bytes.first<link::kHeaderBytes>());
    if (!header) {
        fail(header.error().message);
        return false;
    }
    if (header->payload_bytes > ring::BufferPool::kLargestBytes) {
        fail("a frame with more payload than 1 MiB");
        return false;
    }
    needed_ = link::kHeaderBytes + header->body_bytes;
    if (bytes.size() < needed_) {
        read_more();
        return false;
    }
    const auto body = bytes.subspan(link::kHeaderBytes, header->body_bytes);
    if (crc32c(body) != header->body_crc) {
        fail("a frame's body fails its checksum");
        return false;
    }
    header_ = *header;
    body_.assign(body.begin(), body.end());
    input_first_ += needed_;
    if (header_.payload_bytes > 0) return begin_payload();
    deliver(kNoPayload);
    return true;
}

bool FrameConnection::begin_payload() {
    in_payload_ = true;
    const auto piece = reactor_.buffers().take(header_.payload_bytes, ring::Share::link);
    if (!piece) {
        reactor_.buffers().wait(*this, ring::Share::link);
        return false;
    }
    payload_ = *piece;
    const auto memory = reactor_.buffers().memory(payload_).first(header_.payload_bytes);
    const auto early = unread().first(std::min(unread().size(), memory.size()));
    copy_bytes(early, memory);
    input_first_ += early.size();
    if (early.size() == memory.size()) return payload_complete();
    stream_.receive_all(memory.subspan(early.size()));
    return false;
}

bool FrameConnection::try_again() {
    if (!stream_.is_open()) return true;
    if (begin_payload()) parse();
    return payload_ != kNoPayload || !in_payload_;
}

bool FrameConnection::payload_complete() {
    const auto memory = reactor_.buffers().memory(payload_).first(header_.payload_bytes);
    in_payload_ = false;
    if (crc32c(memory) != header_.payload_crc) {
        fail("a frame's payload fails its checksum");
        return false;
    }
    deliver(std::exchange(payload_, kNoPayload));
    return true;
}

void FrameConnection::deliver(Handle payload) {
    handlers_.frame(header_, body_, payload);
}

void FrameConnection::fail(const std::string& reason) {
    if (!stream_.is_open()) return;
    stream_.close();
    handlers_.broken(reason);
}

// ---- sending ----

bool FrameConnection::push(const Queued& frame) {
    return frame.payload == kNoPayload ? stream_.send(frame.head)
                                       : stream_.send(frame.head, frame.payload, frame.payload_bytes);
}

void FrameConnection::send(std::vector<std::byte> head, Handle payload, std::uint32_t payload_bytes) {
    if (!stream_.is_open() || closing_) return;
    Queued frame{std::move(head), payload, payload_bytes};
    if (queue_.empty() && push(frame)) return;
    if (queue_.size() >= kMaxQueued) return fail("the other side does not read");
    if (payload != kNoPayload) reactor_.buffers().retain(payload);
    queue_.push_back(std::move(frame));
}

void FrameConnection::on_drained() {
    while (!queue_.empty() && push(queue_.front())) {
        if (queue_.front().payload != kNoPayload) reactor_.buffers().release(queue_.front().payload);
        queue_.pop_front();
    }
    if (closing_ && queue_.empty() && stream_.unsent_bytes() == 0) close();
}

void FrameConnection::drop_queued() {
    for (const auto& frame : queue_) {
        if (frame.payload != kNoPayload) reactor_.buffers().release(frame.payload);
    }
    queue_.clear();
}

// ---- the end ----

void FrameConnection::close_after_sending() {
    if (!stream_.is_open()) return;
    if (queue_.empty() && stream_.unsent_bytes() == 0) return close();
    closing_ = true;
    close_limit_.arm(reactor_.now() + seconds(1));
}

void FrameConnection::close() {
    stream_.close();
}

void FrameConnection::on_broken(std::string_view reason) {
    handlers_.broken(std::string(reason));
}

void FrameConnection::on_closed() {
    close_limit_.disarm();
    drop_queued();
    handlers_.closed();
}

}  // namespace gemel::tcp
