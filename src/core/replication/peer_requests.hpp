// PeerRequests: what the other engine asks of this replica: writes and zeroes of the guest, flushes, resync
// chunks and compares, heartbeats. Every request is checked against session, epoch and generation (D13); a
// higher epoch is made durable before its first answer. Resync data and guest data share one interval lock
// until the resync data is stable, so old never lands over new (D6).
//
//   write, zero     epoch -> locking -> applying -> answered        (stable zeroes: -> flushing -> answered)
//   flush           epoch -> flushing -> answered
//   resync write    locking -> applying -> flushing -> answered
//   compare         locking -> hashing -> answered(different) | flushing -> answered(same)
//   read            epoch -> locking -> reading -> answered (with the data)
//
// What an earlier session left on the disk is finished, and keeps its lock, but is not answered.
#pragma once

#include <cstdint>

#include "core/replication/interface.hpp"
#include "core/replication/interval_lock.hpp"
#include "core/replication/slots.hpp"

namespace gemel::replication {

class Core;

enum class PeerRequestKind : std::uint8_t { write, zero, flush, resync_write, compare, read };
enum class PeerRequestState : std::uint8_t { epoch, locking, applying, hashing, reading, flushing };

struct PeerSlot {
    PeerRequestKind kind = PeerRequestKind::write;
    PeerRequestState state = PeerRequestState::epoch;
    SessionId session;
    std::uint64_t request = 0;  // the peer's number of it, or its chunk
    std::uint64_t epoch = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::uint64_t hash_high = 0;
    std::uint64_t hash_low = 0;
    PayloadHandle payload = kNoPayload;
    IntervalLock::Ticket lock = IntervalLock::kNone;
    std::uint32_t next = 0;
    bool unmap = false;
    bool stable = false;
};

class PeerRequests {
  public:
    static constexpr std::uint32_t kRoomBesidesWrites =
        192;  // rounds, resync chunks, what an old session left

    PeerRequests(Core& core, std::uint32_t capacity);
    Slots<PeerSlot>& slots() { return slots_; }

    void write(const WriteMessage& message, PayloadHandle payload);
    void zero(const ZeroMessage& message);
    void flush(const FlushMessage& message);
    void heartbeat(const HeartbeatMessage& message);
    void resync_write(const ResyncWriteMessage& message, PayloadHandle payload);
    void compare(const ResyncCompareMessage& message);
    void read(const ReadMessage& message);

    void pump();
    void lock_granted(std::uint32_t slot);
    void disk_done(std::uint32_t slot, IoStatus status);
    void hash_done(std::uint32_t slot, const HashDone& done);
    void fetch_done(std::uint32_t slot, const FetchDone& done);
    void flushed(std::uint32_t slot, IoStatus status);

  private:
    bool inside(std::uint64_t offset, std::uint64_t length) const;
    AckStatus check(std::uint64_t epoch, std::uint64_t generation_counter) const;
    PeerSlot* take(PeerRequestKind kind, std::uint64_t request, PayloadHandle payload, std::uint32_t& index);
    void admit(std::uint32_t index);
    void start(std::uint32_t index);
    void want_stable(std::uint32_t index);
    void answer(std::uint32_t index, AckStatus status, bool same = false);
    void refuse(PeerRequestKind kind, std::uint64_t request, std::uint64_t epoch, AckStatus status,
                PayloadHandle payload);
    // epoch and generation checked, refused or a slot taken for the message's range; nullptr: nothing to do
    template <typename Message>
    PeerSlot* take_checked(PeerRequestKind kind, const Message& message, PayloadHandle payload,
                           std::uint32_t& index);

    Core& core_;
    Slots<PeerSlot> slots_;
    SlotQueue<PeerSlot> epoch_;
};

}  // namespace gemel::replication
