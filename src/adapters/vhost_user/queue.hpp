// Queue: one virtqueue on a reactor. Waits for the guest's kick, takes what is there, copies payload between
// guest memory and pieces of the pool (once, D11), hands requests to the service in parts of at most 1 MiB,
// and gives back what is done once a turn, with one interrupt. Bounded: commands, parts and payload in
// flight; beyond that nothing is taken. A command whose part the service refuses is not given back at all:
// its record stays, and whoever serves the queue next runs it again. One thread. Not in it: messages,
// mapping.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "adapters/front/block_service.hpp"
#include "adapters/ring/reactor.hpp"
#include "adapters/system/owned_fd.hpp"
#include "adapters/vhost_user/shared_memory.hpp"
#include "core/vhost/block_command.hpp"
#include "core/vhost/ring.hpp"

namespace gemel::vhost_user {

class Queue final : private ring::BufferWaiter, private ring::Deferred {
  public:
    static constexpr std::size_t kMaxCommands = 256;
    static constexpr std::size_t kMaxParts = 256;
    static constexpr std::uint32_t kPartBytes = 1U << 20;
    static constexpr std::uint32_t kMaxPayloadInFlight = 12U << 20;

    // What the connection gives all its queues; it outlives them.
    struct Owner {
        ring::Reactor& reactor;
        front::BlockService& service;
        const SharedMemory& memory;
        const vhost::Disk& disk;
        std::string_view serial;
        // the queue cannot go on; the connection has to end. Not to be destroyed from inside the call
        std::function<void(std::string_view why)> failed;
        // settled() or idle() may have become true
        std::function<void()> changed;
    };

    explicit Queue(Owner& owner);
    ~Queue() override;
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    // Takes the descriptor; only when settled(). -1: nobody wants to be told.
    void set_kick(OwnedFd fd);
    void set_call(OwnedFd fd);
    // Lets go of the descriptors' operations; settled() comes true later, changed() tells.
    void unsettle();
    bool settled() const { return !kick_.busy && !call_.busy; }

    bool is_open() const { return ring_ != nullptr; }
    // false: the ring cannot be
    bool open(bool packed, const vhost::RingSetup& setup);
    // running: what is available is taken; otherwise only what was taken before is brought to its end
    void run(bool running, bool write_through);
    bool remap();
    void log_used(bool on, std::uint64_t address);
    // No request of it is under way, and nothing is left that a former process took.
    bool drained() const;
    // Once drained: closes the ring and says where it stands.
    std::uint32_t close_ring();

    // Nothing more is taken, and only what succeeded is given back; idle() comes true when all has ended.
    void close();
    bool idle() const { return commands_open_ == 0 && settled() && !posted_ && !deferred_; }

  private:
    static constexpr std::uint32_t kNone = 0xffffffffU;
    struct Command {
        vhost::Chain chain;
        vhost::BlockCommand command;
        SharedMemory::Hold memory;     // its pieces lie there
        std::uint32_t parts_open = 0;  // begun and not done
        std::uint32_t at = 0;          // bytes for which parts were begun
        bool begun = false;            // all parts were
        front::BlockStatus status = front::BlockStatus::ok;
    };
    class Part final : public front::BlockRequest {
      public:
        Queue* queue = nullptr;
        std::uint32_t command_index = kNone;
        std::uint32_t at = 0;  // of the command's bytes
        void block_done(front::BlockStatus status) override { queue->part_done(*this, status); }
    };
    struct Event final : ring::Completion {
        Queue& queue;
        void (Queue::*done)(std::int32_t);
        OwnedFd fd;
        bool busy = false;
        Event(Queue& owner, void (Queue::*method)(std::int32_t)) : queue(owner), done(method) {}
        void on_complete(std::int32_t result, std::uint32_t) override {
            busy = false;
            (queue.*done)(result);
        }
    };

    bool try_again() override;
    void run_deferred() override;
    void wait_for_kick();
    void kicked(std::int32_t result);
    void call();
    void called(std::int32_t result);
    void serve();
    bool take_one();
    void begin(std::uint32_t index);
    bool go_on();
    Part* take_part(Command& command, std::uint32_t index);
    void part_done(Part& part, front::BlockStatus status);
    void end_if_done(std::uint32_t index);
    void finish(std::uint32_t index, vhost::BlockStatus status, std::uint32_t bytes);
    void show();
    void release(Part& part);
    void serve_later();
    void show_later();

    Owner& owner_;
    Event kick_;
    Event call_;
    std::uint64_t call_value_ = 1;
    bool call_again_ = false;
    bool unsettling_ = false;

    std::unique_ptr<vhost::Ring> ring_;
    SharedMemory::Hold ring_memory_;
    bool running_ = false;
    bool write_through_ = false;
    bool closing_ = false;
    bool shown_ = true;

    std::vector<Command> commands_;
    std::vector<Part> parts_;
    std::vector<std::uint32_t> free_commands_;
    std::vector<std::uint32_t> free_parts_;
    std::size_t commands_open_ = 0;
    std::uint32_t current_ = kNone;  // the command whose parts are being begun
    std::uint32_t payload_in_flight_ = 0;
    bool wants_memory_ = false;
    bool stalled_ = false;  // taking stopped for want of a slot or memory
    bool posted_ = false;
    bool deferred_ = false;
};

}  // namespace gemel::vhost_user
