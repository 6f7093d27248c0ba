// FrontRequests: the guest's requests at the Primary. Intent before data, local and peer write in parallel,
// the guest is told when every replica that counts has it and nothing is frozen.
// docs/design/0001-write-path.md lists the races and why each edge exists.
//
//   write, zero   locking -> gated -> making_room -> intent -> applying -+-> (next piece: gated)
//                                                                        +-> settling (FUA, stable) ->
//                                                                        answering
//   read          locking -> gated -> reading -> answering
//                 reading -failed-> locking (exclusive) -> fetching (from the peer) -> repairing -> answering
//   own disk gone (Authority::over_network()): write, zero without room and intent; read gated -> fetching
//                 -> answering
//   flush         settling -> answering
//
// locking: waits for overlapping requests. gated and answering: waits while frozen. Every request holds its
// slot, and its lock, until it is answered; a demoted Primary answers `refused` as soon as no disk operation
// holds the buffer.
#pragma once

#include <cstdint>
#include <vector>

#include "core/replication/active_extents.hpp"
#include "core/replication/interface.hpp"
#include "core/replication/interval_lock.hpp"
#include "core/replication/slots.hpp"

namespace gemel::replication {

class Core;

enum class FrontState : std::uint8_t {
    locking,
    gated,
    making_room,
    intent,
    applying,
    reading,
    fetching,   // asked of the peer, or waiting for it
    repairing,  // what came is being written over what could not be read
    settling,
    answering
};

struct FrontSlot {
    FrontRequest request;
    FrontState state = FrontState::locking;
    std::uint32_t next = 0;    // in the queue of its state
    std::uint32_t serial = 0;  // tells two uses of a slot apart on the wire
    IntervalLock::Ticket lock = IntervalLock::kNone;
    std::uint64_t piece_at = 0;  // long zeroings go piece by piece, so that a piece fits into the intent log
    std::uint64_t piece_length = 0;
    Transaction waits_for = 0;
    RoundId settles_with = 0;
    bool mirrored = false;     // this piece went to the peer
    bool local_done = false;   // its disk operation ended
    bool peer_done = false;    // acknowledged, or the peer does not count
    bool in_log = false;       // this piece's extents are entered
    bool repair = false;       // a read that failed here: holds its range alone from then on
    bool made_stable = false;  // what it was sent with: every answer means stable, no round is needed
    PayloadHandle fetched = kNoPayload;  // the peer's data
    IoStatus status = IoStatus::ok;
    Instant started;
};

class FrontRequests {
  public:
    static constexpr std::uint64_t kPieceBytes = 64ULL << 20;

    explicit FrontRequests(Core& core, std::uint32_t capacity);

    // -- inputs
    void submit(const FrontRequest& request);
    void lock_granted(std::uint32_t slot);
    void disk_done(std::uint32_t slot, IoStatus status);
    void peer_ack(const AckMessage& ack);
    void read_reply(const ReadReplyMessage& reply, PayloadHandle payload);

    // -- what other phases report
    void pump();
    void intent_stable(Transaction transaction);
    void round_ended(RoundId round);
    void peer_resumed();  // send again what the same peer process may not have got
    void peer_gone();     // it does not count any more: what it has not acknowledged is a tracked difference
    void peer_joined();   // it is UpToDate: what could not be read here is asked of it
    // Served over the network: the node with the only copy rebooted and may have forgotten what was answered
    // and not flushed; or that copy failed. The guest is told (io_error) until this epoch ends.
    void only_copy_rebooted();
    void only_copy_failed() { only_copy_failed_ = true; }
    // The first of the two: another start, of another epoch, would be served from that copy.
    bool disk_lost() const { return only_copy_forgot_; }
    void promoted();       // what came before the epoch was granted is taken up
    void early_refused();  // and now it never will be
    void demoted();        // the lease is somebody else's: answer `refused`

    std::uint32_t in_flight() const { return static_cast<std::uint32_t>(slots_.used()); }
    // asked of a front end whose epoch is not granted yet (Authority::incoming_epoch())
    std::uint32_t early() const { return static_cast<std::uint32_t>(early_.size()); }
    // tells how long guest writes take, for the resync's throttle; zero: none lately
    Duration write_latency() const { return write_latency_; }
    Instant last_write() const { return last_write_; }

  private:
    void move(std::uint32_t index, FrontState next);
    bool valid(const FrontRequest& request) const;
    void gate(std::uint32_t index);
    void make_room(std::uint32_t index);
    void entered(std::uint32_t index);
    void find_room();
    void submit_piece(std::uint32_t index);
    void submit_read(std::uint32_t index);
    void read_failed(std::uint32_t index);
    void fetch(std::uint32_t index);
    void go_over_network();
    void ask_again();
    void leave_log(FrontSlot& slot);
    bool wants_stable(const FrontSlot& slot) const;
    void send_to_peer(std::uint32_t index);
    void write_locally(std::uint32_t index);
    void piece_may_have_ended(std::uint32_t index);
    void finish_write(std::uint32_t index);
    void answer(std::uint32_t index);
    void complete(std::uint32_t index, IoStatus status);
    void local_error(std::uint32_t index, IoStatus status);
    void refuse_if_idle(std::uint32_t index);
    void open_gate();
    void fail_all();
    std::uint64_t wire_number(std::uint32_t index);

    Core& core_;
    Slots<FrontSlot> slots_;
    SlotQueue<FrontSlot> gated_;
    SlotQueue<FrontSlot> gated_reads_;
    SlotQueue<FrontSlot> making_room_;
    SlotQueue<FrontSlot> intent_;
    SlotQueue<FrontSlot> settling_;
    SlotQueue<FrontSlot> answering_;
    std::vector<FrontRequest> early_;  // no locks are held for them: the present owner's writes go on here
    std::uint32_t next_serial_ = 1;
    Duration write_latency_{};
    Instant last_write_{};
    bool over_network_ = false;
    bool only_copy_failed_ = false;
    bool only_copy_forgot_ = false;
    bool fetches_wait_ = false;  // some request is in state fetching
    RoundId unsettled_ = 0;      // over the network: the round that covers the newest write that ended
};

}  // namespace gemel::replication
