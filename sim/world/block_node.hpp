// BlockNode: what gemel-blockd is in the real world, for one volume on one host: it joins an engine to the
// disk, the peer link, the front end and its clusterd. It decides nothing. A process life begins with start()
// and ends with die(); between two lives the disk finishes what the first one left behind, and the second
// waits for it (the lock on the back end).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/replication/engine.hpp"
#include "core/replication/interface.hpp"
#include "sim/checkers/stable_before.hpp"
#include "sim/guests/guest.hpp"
#include "sim/world/clock.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/disk.hpp"
#include "sim/world/event_queue.hpp"
#include "sim/world/payload.hpp"
#include "sim/world/peer_link.hpp"

namespace gemel::sim {

// What an engine asks of its node's control plane, and what the control plane learns from it.
class ControlPort {
  public:
    virtual void propose(std::uint32_t node, const replication::Propose& propose) = 0;
    virtual void need_record(std::uint32_t node, std::uint64_t at_least_revision) = 0;
    virtual void epoch_refused(std::uint32_t node, std::uint64_t epoch) = 0;
    virtual void lease_extended(std::uint32_t node, std::uint64_t epoch, Instant local_until) = 0;
    virtual void serve_front(std::uint32_t node, std::uint64_t epoch) = 0;
    virtual void stop_front(std::uint32_t node, std::uint64_t epoch) = 0;
    // the view has changed in a way worth telling at once; the link to the peer's blockd came or went
    virtual void view_changed(std::uint32_t) {}
    virtual void peer_session(std::uint32_t, bool, const PeerIdentity&) {}
    // a request was answered well whose guest is no longer there
    virtual void answered_nobody(std::uint32_t, std::uint64_t, const GuestRequest&) {}

  protected:
    ~ControlPort() = default;
};

class BlockNode final : public EventSink, public DiskClient, public PeerClient, public FrontPort {
  public:
    struct Parts {
        EventQueue& queue;
        Trace& trace;
        Counters& counters;
        PayloadPool& payloads;
        Disk& disk;
        PeerLink& link;
        NodeClock& clock;
        ControlPort& control;
        Guest& guest;
        EngineWatch* watch = nullptr;  // a checker of inputs and outputs
    };
    BlockNode(Parts parts, std::uint32_t node, Prng random);

    // -- life of the process
    void start(const replication::EngineConfig& config);
    void die();
    void pause(bool paused);
    bool alive() const { return starting_ || engine_ != nullptr; }
    bool running() const { return engine_ != nullptr; }
    bool paused() const { return paused_; }
    replication::View view() const;
    std::uint64_t served_epoch() const { return served_epoch_; }
    std::size_t requests_waiting() const { return front_.size(); }

    // -- inputs from the control plane; ignored while there is no process
    void input(replication::Input input);

    // -- ports
    void disk_done(std::uint64_t tag, DiskOutcome outcome) override;
    void metadata_read_done(std::uint64_t tag, DiskOutcome outcome,
                            std::span<const std::byte> bytes) override;
    void hash_done(std::uint64_t tag, DiskOutcome outcome, std::uint64_t high, std::uint64_t low) override;
    void peer_up(SessionId session, const PeerIdentity& peer) override;
    void peer_down(SessionId session) override;
    void peer_message(SessionId session, const replication::PeerMessage& message,
                      const std::vector<Stamp>& stamps) override;
    void front_submit(std::uint64_t epoch, const GuestRequest& request) override;
    void on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) override;

  private:
    enum Kind : std::uint32_t { kTimer, kOpenBackEnd };
    struct FrontSlot {
        std::uint32_t payload = replication::kNoPayload;
        GuestRequest request;
        std::uint64_t epoch = 0;
    };
    void open_back_end();
    void step(const replication::Input& input);
    void carry_out(const replication::Output& output);
    bool carry_out_disk(const replication::Output& output);
    void complete_front(const replication::FrontComplete& complete);
    void arm_timer();
    void note(const replication::Notice& notice);
    std::uint32_t take_payload(std::size_t sectors);
    void release_payload(std::uint32_t handle);

    Parts parts_;
    std::uint32_t node_;
    Prng random_;
    std::unique_ptr<replication::Engine> engine_;
    replication::EngineConfig config_;
    bool starting_ = false;
    bool paused_ = false;
    bool stepping_ = false;
    std::uint64_t process_ = 0;  // number of the process life; unique over both nodes
    std::uint64_t served_epoch_ = 0;
    std::deque<replication::Input> waiting_inputs_;
    std::deque<replication::Input> paused_inputs_;
    replication::Outputs outputs_;
    std::unordered_map<std::uint64_t, FrontSlot> front_;
    std::unordered_map<std::uint64_t, std::uint32_t> fetches_;  // disk tag -> buffer
    std::vector<bool> owned_;                                   // payload handles this process holds
    PeerIdentity peer_;                                         // of the newest session
    Instant timer_armed_ = Instant::never();
    std::uint64_t timer_life_ = 0;
};

}  // namespace gemel::sim
