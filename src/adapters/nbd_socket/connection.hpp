// Connection: one NBD client connection on a reactor. Joins the protocol machine (core/nbd), a stream and the
// volume. A write's payload is received straight into the piece of memory that feeds disk and wire; requests
// above 1 MiB are executed in parts, and one that failed in any part fails whole (D15). Bounded: requests and
// parts in flight, and memory by the pool's front share; beyond that the socket is simply not read. One
// thread. Not in it: who may connect, epochs, what happens when the volume freezes (its requests just take
// longer).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "adapters/front/block_service.hpp"
#include "adapters/front/connection.hpp"
#include "adapters/ring/stream.hpp"
#include "core/nbd/server.hpp"

namespace gemel::nbd_socket {

using front::BlockOperation;
using front::BlockRequest;
using front::BlockService;
using front::BlockStatus;
using front::kNoPayload;

class Connection final : public front::Connection, private ring::StreamOwner, private ring::BufferWaiter {
  public:
    using Handle = ring::BufferPool::Handle;
    static constexpr std::size_t kMaxRequests = 256;
    static constexpr std::size_t kMaxParts = 256;
    static constexpr std::uint32_t kPartBytes = 1U << 20;
    static constexpr std::uint32_t kMaxPayloadInFlight = 12U << 20;  // of this connection

    Connection(ring::Reactor& reactor, int fd, nbd::Export exported, BlockService& service,
               Handlers handlers);
    ~Connection() override;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void start() override;
    void close() override;

  private:
    static constexpr std::uint32_t kNone = 0xffffffffU;
    struct Operation {
        nbd::Request request;
        std::uint32_t parts_open = 0;  // begun and not done
        std::uint32_t at = 0;          // bytes for which parts were begun
        bool data_sent = false;        // read: a part of the answer is on its way
        nbd::ReplyError error = nbd::ReplyError::none;
    };
    class Part final : public BlockRequest {
      public:
        Connection* connection = nullptr;
        std::uint32_t operation_index = kNone;
        void block_done(BlockStatus status) override { connection->part_done(*this, status); }
    };

    void on_received(std::size_t bytes) override;
    void on_drained() override;
    void on_broken(std::string_view reason) override;
    void on_closed() override;
    bool try_again() override;

    void read_more();
    void parse();
    bool parse_one();
    bool handle(const nbd::Step& step);
    bool begin(const nbd::Request& request);
    bool go_on();
    bool start_plain();
    bool start_write_part();
    bool write_part_complete();
    bool start_read_part(std::uint32_t index);
    Part* take_part(std::uint32_t index, std::uint32_t bytes, bool with_payload);
    void submit(Part& part);
    void part_done(Part& part, BlockStatus status);
    void read_part_done(std::uint32_t index, Part& part);
    void finish(std::uint32_t index, bool answered);
    bool send(std::span<const std::byte> bytes);
    void release_part(Part& part);
    void resume();
    void fail(const std::string& why);
    void end_if_idle();
    std::span<const std::byte> unread() const {
        return std::span<const std::byte>(input_).subspan(input_first_, input_last_ - input_first_);
    }

    ring::Reactor& reactor_;
    Handlers handlers_;
    BlockService& service_;
    nbd::Server server_;
    ring::Stream stream_;
    std::vector<std::byte> input_;
    std::size_t input_first_ = 0;
    std::size_t input_last_ = 0;

    std::vector<Operation> operations_;
    std::vector<Part> parts_;
    std::vector<std::uint32_t> free_operations_;
    std::vector<std::uint32_t> free_parts_;
    std::vector<std::uint32_t> reads_waiting_;  // operations whose next part found no memory
    // The operation whose parts are being begun: nothing more is parsed until it is through.
    std::uint32_t current_ = kNone;
    Part* receiving_ = nullptr;  // write part whose payload is coming in
    bool stalled_ = false;       // parsing stopped for want of a slot, memory or room in the socket
    bool wants_memory_ = false;
    std::uint32_t payload_in_flight_ = 0;
    std::uint32_t submitted_ = 0;
    bool orderly_ = false;
    bool stream_gone_ = false;
    bool ended_ = false;
};

// The socket of one export; the service outlives its connections.
front::Door door(ring::Reactor& reactor, BlockService& service, nbd::Export exported);

}  // namespace gemel::nbd_socket
