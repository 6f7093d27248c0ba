// FrameConnection: one TCP connection of a replication link that carries whole frames (core/link/wire.hpp).
// Incoming: header and body are checked before they are handed on; payload is received straight into a piece
// of the reactor's pool and checked there. Outgoing: heads and payload pieces are queued and leave together,
// without copying payload. What fails a checksum or a bound ends the connection; nothing of it is handed on.
// One thread. Not in it: sessions, order, resending (core/link/session.hpp), who may connect.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/ring/stream.hpp"
#include "core/link/wire.hpp"

namespace gemel::tcp {

class FrameConnection final : private ring::StreamOwner, private ring::BufferWaiter {
  public:
    using Handle = ring::BufferPool::Handle;
    static constexpr Handle kNoPayload = 0xffffffffU;

    struct Handlers {
        // body: valid during the call; payload: one reference for the callee, or kNoPayload
        std::function<void(const link::FrameHeader&, std::span<const std::byte> body, Handle payload)> frame;
        // once; nothing comes after it but closed
        std::function<void(const std::string& reason)> broken;
        // the connection may be destroyed (not from inside the call)
        std::function<void()> closed;
    };

    // takes the descriptor of a connected socket
    FrameConnection(ring::Reactor& reactor, int fd, Handlers handlers);
    ~FrameConnection() override;
    FrameConnection(const FrameConnection&) = delete;
    FrameConnection& operator=(const FrameConnection&) = delete;

    void start();
    void set_handlers(Handlers handlers) { handlers_ = std::move(handlers); }
    // payload: the connection takes a reference of its own for as long as it needs it
    void send(std::vector<std::byte> head, Handle payload, std::uint32_t payload_bytes);
    // Ends it after what is queued has left (a refusal shall arrive), but within a second.
    void close_after_sending();
    void close();
    bool is_open() const { return stream_.is_open(); }

  private:
    // Enough for the largest header and body; small reads keep payload out of this buffer.
    static constexpr std::size_t kInputBytes = link::kHeaderBytes + link::kMaxBodyBytes;
    static constexpr std::size_t kUsualRead = 16U << 10;
    static constexpr std::size_t kMaxQueued = 16384;
    struct Queued {
        std::vector<std::byte> head;
        Handle payload = kNoPayload;
        std::uint32_t payload_bytes = 0;
    };

    void on_received(std::size_t bytes) override;
    void on_drained() override;
    void on_broken(std::string_view reason) override;
    void on_closed() override;
    bool try_again() override;

    void read_more();
    void parse();
    bool parse_one();
    bool begin_payload();
    bool payload_complete();
    void deliver(Handle payload);
    void fail(const std::string& reason);
    bool push(const Queued& frame);
    void drop_queued();
    std::span<const std::byte> unread() const {
        return std::span<const std::byte>(input_).subspan(input_first_, input_last_ - input_first_);
    }

    ring::Reactor& reactor_;
    Handlers handlers_;
    ring::Stream stream_;
    ring::Timer close_limit_;
    std::vector<std::byte> input_;
    std::size_t input_first_ = 0;
    std::size_t input_last_ = 0;
    std::size_t needed_ = link::kHeaderBytes;

    link::FrameHeader header_;
    std::vector<std::byte> body_;
    Handle payload_ = kNoPayload;
    bool in_payload_ = false;
    std::size_t payload_at_ = 0;

    std::deque<Queued> queue_;
    bool closing_ = false;
};

}  // namespace gemel::tcp
