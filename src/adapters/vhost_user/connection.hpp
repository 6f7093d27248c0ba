// Connection: one front end (QEMU) on one vhost-user socket. Receives messages with their descriptors, lets
// core/vhost understand them, and brings about what they ask: mappings, events, rings. A message is received
// when the one before is through. Whatever makes no sense ends the connection, with a line in the log; QEMU
// connects again, and what was in flight is run again from its records. One thread.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/front/connection.hpp"
#include "adapters/vhost_user/queue.hpp"
#include "core/vhost/session.hpp"

namespace gemel::vhost_user {

class Connection final : public front::Connection, private ring::Completion {
  public:
    Connection(ring::Reactor& reactor, int fd, const vhost::Disk& disk, std::string serial,
               front::BlockService& service, Handlers handlers);
    ~Connection() override;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void start() override;
    void close() override;

  private:
    void on_complete(std::int32_t result, std::uint32_t flags) override;

    void receive();
    bool collect_descriptors();
    void message();
    void act(const vhost::Action& action);
    void act_on_event(const vhost::SetEvent& event);
    void place_event();
    void stop_queue(std::uint16_t index);
    void make_in_flight(std::uint64_t bytes);
    void done(const Status& status);
    void done(bool well);
    bool send_reply(int descriptor = -1);
    // answered: what the queues shall be is brought about, and the next message received
    void answered();
    bool arrange(std::uint16_t index);
    bool remap();
    bool any_ring() const;
    std::vector<int> descriptors() const;
    void queue_changed();
    void fail(std::string_view why);
    void end_if_idle();

    ring::Reactor& reactor_;
    Handlers handlers_;
    OwnedFd socket_;
    std::string serial_;
    vhost::Session session_;
    SharedMemory memory_;
    OwnedFd request_channel_;  // kept: QEMU takes its end for an error
    Queue::Owner owner_;
    std::vector<std::unique_ptr<Queue>> queues_;

    std::array<std::byte, vhost::kHeaderBytes + vhost::kMaxPayloadBytes> input_{};
    std::size_t have_ = 0;
    std::size_t want_ = vhost::kHeaderBytes;
    std::vector<OwnedFd> received_;  // along with this message
    struct alignas(8) Control {
        std::array<std::byte, 64> bytes{};
    };
    Control control_;
    iovec vector_{};
    msghdr received_message_{};

    enum class Waiting : std::uint8_t { nothing, event, stop };
    Waiting waiting_ = Waiting::nothing;  // for the queue, before the message is through
    std::uint16_t waiting_queue_ = 0;
    vhost::SetEvent event_;
    bool receiving_ = false;
    bool closing_ = false;
    bool ended_ = false;
};

// The socket of one disk; the service outlives its connections. One connection at a time: the next begins
// when the last request of the one before has ended, so that nothing is in flight twice.
front::Door door(ring::Reactor& reactor, front::BlockService& service, const vhost::Disk& disk,
                 std::string serial);

}  // namespace gemel::vhost_user
