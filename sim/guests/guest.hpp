// Guest: one virtual machine with a virtio-like disk: several queues, overlapping reads, writes, flushes,
// FUA, discards and zeroing, in bursts. It exists on at most one node at a time in its own eyes; a start
// elsewhere is a new run of the same disk. Requests not answered when its daemon dies are sent again when the
// front end of the same epoch is back (as QEMU does); those not answered when the guest dies are open for
// ever: they may have happened. It asks History whether what it reads may be shown, and tells it what was
// acknowledged. Not in it: who may run it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/checkers/history.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/event_queue.hpp"
#include "sim/world/payload.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

enum class GuestOperation : std::uint8_t { read, write, flush, discard, write_zeroes };

struct GuestRequest {
    std::uint64_t tag = 0;
    GuestOperation operation = GuestOperation::read;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    bool fua = false;
    Stamp stamp = kZeroes;  // of a write
};

// The front end of one epoch, on the guest's node.
class FrontPort {
  public:
    virtual void front_submit(std::uint64_t epoch, const GuestRequest& request) = 0;

  protected:
    ~FrontPort() = default;
};

// How one seed's guest behaves (swarm: each seed another mixture).
struct Workload {
    std::uint32_t queues = 4;
    std::uint32_t read_weight = 30, write_weight = 45, flush_weight = 10, fua_weight = 5, zero_weight = 4,
                  discard_weight = 4;
    std::uint32_t hot_blocks = 48;  // blocks the guest likes, spread over the extents
    std::uint32_t largest_sectors = 64;
    Duration gap = microseconds(900);  // mean time between a completion and the next request of a queue
    std::uint32_t burst = 60;          // requests of a queue before it rests
    Duration rest = milliseconds(400);
    static Workload swarm(Prng& random);
};

// What the rest of the world wants to know about completions.
class GuestObserver {
  public:
    // before History hears of it; `ack_mask` answers which nodes the committed record names now
    virtual std::uint32_t on_acknowledged(std::uint32_t node, std::uint64_t epoch,
                                          const GuestRequest& request) = 0;
    virtual void on_write_acknowledged(WriteNumber write) = 0;
    virtual void on_flushed(const std::vector<WriteNumber>& made_stable) = 0;
    // the guest is told that its disk has failed
    virtual void on_io_error(std::uint32_t node, const GuestRequest& request) = 0;
    virtual void on_breach(const std::string& promise, const std::string& what) = 0;

  protected:
    ~GuestObserver() = default;
};

class Guest final : public EventSink {
  public:
    Guest(EventQueue& queue, Trace& trace, Counters& counters, Prng random, History& history,
          GuestObserver& observer, Workload workload, std::uint64_t data_bytes, bool mode_stable);

    // -- its life
    void start(std::uint32_t node, std::uint64_t epoch);
    void kill();
    void set_vcpus(bool running);  // paused: completions arrive, nothing new is asked
    // It goes on elsewhere, with its memory. What a copy asked that nobody answered is forgotten with the
    // copy.
    void go_on(std::uint32_t node, std::uint64_t epoch, FrontPort* port);
    bool alive() const { return alive_; }
    bool running() const { return alive_ && running_; }
    std::uint32_t node() const { return node_; }
    std::uint64_t epoch() const { return epoch_; }
    // -- its disk
    void front_opened(FrontPort& port);  // sends again what was not answered
    void front_lost();
    bool connected() const { return port_ != nullptr; }
    void completed(std::uint64_t tag, bool ok, std::span<const Stamp> read, bool io_error = false);
    // -- a script's side: from now on nothing of its own accord but a sweep; one request of its own, and what
    // became of each
    void obey_script() { scripted_ = true; }
    std::uint64_t ask(GuestOperation operation, std::uint64_t offset, std::uint32_t length, bool fua);
    // the guest's memory of that request changes while it is on its way
    void scribble(std::uint64_t tag);
    using CompletionListener = std::function<void(const GuestRequest& request, WriteNumber write, bool ok,
                                                  std::span<const Stamp> read)>;
    void on_completion(CompletionListener listener) { listener_ = std::move(listener); }
    // -- asked by the world
    void stop_asking(bool stop);  // for quiet checks
    std::uint64_t hot_sector(Prng& random) const {
        return hot_[random.below(hot_.size())] * kSectorsPerBlock;
    }
    bool idle() const { return outstanding_ == 0; }
    std::uint64_t requests() const { return requests_; }
    std::uint64_t completions() const { return completions_; }
    std::uint64_t errors() const { return errors_; }
    // reads every touched block once and then reports through idle()
    void begin_sweep();
    bool sweeping() const { return sweep_at_ < sweep_.size(); }

    void on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) override;

  private:
    struct Slot {
        GuestRequest request;
        WriteNumber write = 0;
        Instant begun;
        std::uint32_t queue = 0;
        bool active = false;
    };
    void issue(std::uint32_t queue);
    void choose(GuestRequest& request);
    void place(GuestRequest& request);
    void send(std::uint32_t slot);
    void schedule(std::uint32_t queue);
    void finish_ok(Slot& slot, std::span<const Stamp> read);
    std::uint32_t take_slot();
    void begin(std::uint32_t index);

    EventQueue& queue_;
    Trace& trace_;
    Counters& counters_;
    Prng random_;
    History& history_;
    GuestObserver& observer_;
    Workload workload_;
    std::uint64_t data_bytes_;
    bool mode_stable_;
    std::vector<std::uint64_t> hot_;
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> burst_left_;
    std::vector<std::uint64_t> sweep_;
    std::size_t sweep_at_ = 0;
    FrontPort* port_ = nullptr;
    bool alive_ = false;
    bool running_ = false;
    bool stopped_ = false;
    bool scripted_ = false;
    std::uint32_t node_ = 0;
    std::uint64_t epoch_ = 0;
    std::uint32_t life_ = 0;
    std::uint32_t outstanding_ = 0;
    std::uint64_t next_tag_ = 1;
    std::uint64_t requests_ = 0;
    std::uint64_t completions_ = 0;
    std::uint64_t errors_ = 0;
    CompletionListener listener_;
    Counters::Id count_operation_[5];
};

}  // namespace gemel::sim
