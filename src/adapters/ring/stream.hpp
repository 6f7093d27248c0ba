// Stream: a connected stream socket (TCP or unix) on a reactor. Sending gathers small heads (copied) and
// payload pieces (by handle, retained until sent) of a whole turn into one system call: at once where it is
// little, through the ring where copying takes longer than starting the disks. Receiving fills a buffer of
// the caller, at least partly or to the last byte. When anything breaks, both directions end and
// the owner is told once; after close() or a break the owner hears on_closed() when the kernel has let go of
// everything, and only then may the Stream be destroyed. One thread. Not in it: framing, reconnecting, who
// the peer is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/uio.h>
#include <vector>

#include "adapters/ring/reactor.hpp"
#include "base/containers.hpp"

namespace gemel::ring {

class StreamOwner {
  public:
    // 1.. bytes arrived in the memory given to receive(); with receive_all() exactly its size
    virtual void on_received(std::size_t bytes) = 0;
    // everything handed to send() so far is with the kernel: there is room again
    virtual void on_drained() {}
    // the connection ended or broke; nothing more is sent or received. "closed by the other side" is the
    // orderly end
    virtual void on_broken(std::string_view reason) = 0;
    // after a break or close(): no operation is under way any more
    virtual void on_closed() = 0;

  protected:
    virtual ~StreamOwner() = default;
};

class Stream final : private Deferred {
  public:
    // takes the descriptor; head_bytes: room for heads not yet sent
    Stream(Reactor& reactor, StreamOwner& owner, int fd, std::size_t head_bytes,
           std::size_t max_segments = 1024);
    ~Stream() override;
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // One at a time.
    void receive(std::span<std::byte> memory) { start_receive(memory, false); }
    void receive_all(std::span<std::byte> memory) { start_receive(memory, true); }

    // true: queued. false: no room now (try again at on_drained) or the connection is over; nothing was
    // taken.
    bool send(std::span<const std::byte> head);
    // head may be empty where there is a payload
    bool send(std::span<const std::byte> head, BufferPool::Handle payload, std::size_t payload_bytes);
    std::size_t unsent_bytes() const { return unsent_bytes_; }
    std::size_t unsent_segments() const { return segments_.size(); }

    // what is queued is dropped
    void close();
    bool is_open() const { return state_ == State::open; }
    int fd() const { return fd_; }

  private:
    static constexpr BufferPool::Handle kNoPayload = 0xffffffffU;
    static constexpr std::size_t kMaxVectors = 128;
    static constexpr std::size_t kDirectBytes = 64U << 10;  // up to here: at once, with a system call
    enum class State : std::uint8_t { open, ending, closed };
    struct Segment {  // a head in the head ring, or a payload
        const std::byte* data = nullptr;
        std::size_t size = 0;
        BufferPool::Handle payload = kNoPayload;
        std::size_t head_bytes = 0;  // to be given back to the head ring, padding at its end included
    };
    struct Direction final : Completion {
        Stream& stream;
        void (Stream::*done)(std::int32_t);
        bool busy = false;
        Direction(Stream& owner, void (Stream::*method)(std::int32_t)) : stream(owner), done(method) {}
        void on_complete(std::int32_t result, std::uint32_t) override {
            busy = false;
            (stream.*done)(result);
        }
    };

    void run_deferred() override;
    void schedule();
    void start_receive(std::span<std::byte> memory, bool all);
    void receive_done(std::int32_t result);
    void gather();
    void send_directly();
    void start_send();
    void send_done(std::int32_t result);
    void after_send(std::size_t bytes);
    void sent(std::size_t bytes);
    bool push_head(std::span<const std::byte> head);
    void broken(std::string_view reason);
    void end();
    void finish_if_idle();

    Reactor& reactor_;
    StreamOwner& owner_;
    int fd_;
    State state_ = State::open;
    bool deferred_ = false;
    Direction receiving_;
    Direction sending_;
    std::span<std::byte> receive_memory_;
    std::size_t receive_at_ = 0;
    bool receive_all_ = false;

    std::vector<std::byte> heads_;  // ring of bytes; a head is contiguous
    std::size_t heads_first_ = 0;
    std::size_t heads_used_ = 0;
    BoundedQueue<Segment> segments_;
    std::size_t unsent_bytes_ = 0;
    bool tell_drained_ = false;
    std::array<iovec, kMaxVectors> vectors_{};
    msghdr message_{};
};

}  // namespace gemel::ring
