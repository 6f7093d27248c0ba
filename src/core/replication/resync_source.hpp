// ResyncSource: brings the target up to this replica while guests go on writing. Blocks with a dirty bit are
// locked (shared: reads pass, writes wait), compared by hash, sent if they differ, and cleared when the
// target says stable (D4). Nothing newer can be accepted for a block in between, because its lock is held
// (D6). Restartable at every point: bits not cleared are still there.
//
//   off -> preparing (full only: every bit stable, then "tracked for this target" stable)
//       -> waiting (for the target's bitmap and its ready) -> running -> off (session lost, joined)
//
//   a chunk:  locking -> hashing -> comparing -+-> same: cleared
//                                              +-> reading -> sending -> cleared
//   where a former process of this boot may have left a disk that shows what it has forgotten (F4, H38):
//             locking -> reading -> restoring (written back as it was read) -> sending -> cleared
#pragma once

#include <cstdint>
#include <vector>

#include "core/replication/interface.hpp"
#include "core/replication/interval_lock.hpp"

namespace gemel::replication {

class Core;

class ResyncSource {
  public:
    explicit ResyncSource(Core& core);

    void begin(bool full);
    void pump();
    void session_lost();
    void finished();  // the join is committed

    void bitmap_message(const BitmapMessage& message);
    void ready_message();
    void chunk_ack(const ResyncAckMessage& ack);
    void lock_granted(std::uint32_t chunk);
    void hash_done(std::uint32_t chunk, const HashDone& done);
    void read_done(std::uint32_t chunk, const FetchDone& done);
    void restore_done(std::uint32_t chunk, IoStatus status);

    bool active() const { return state_ != State::off; }
    // The target said that it is marked Inconsistent: from now on guest writes go there too.
    bool mirroring() const { return state_ == State::running; }
    // Every block is on the target, stably.
    bool all_sent() const;
    std::uint64_t done_bytes() const { return done_bytes_; }
    std::uint64_t total_bytes() const { return total_bytes_; }
    Instant next_deadline() const;

  private:
    enum class State : std::uint8_t { off, preparing, waiting, running };
    enum class ChunkState : std::uint8_t { free, locking, hashing, comparing, reading, restoring, sending };
    struct Chunk {
        ChunkState state = ChunkState::free;
        bool abandoned = false;  // the session ended: let go when the disk lets go
        std::uint64_t offset = 0;
        std::uint32_t length = 0;
        std::uint32_t serial = 0;
        PayloadHandle payload = kNoPayload;  // while restoring
        IntervalLock::Ticket lock = IntervalLock::kNone;
    };
    static constexpr Duration kPaceInterval = milliseconds(100);
    void enter(State next);
    void prepare();
    void start_chunks();
    bool next_range(std::uint64_t& offset, std::uint32_t& length);
    bool in_flight(std::uint64_t offset) const;
    bool shown_is_held() const;
    void fetch(std::uint32_t index);
    void send(Chunk& chunk, PayloadHandle payload);
    void cleared(Chunk& chunk);
    void let_go(Chunk& chunk);
    void read_failed();
    void adjust_pace();
    std::uint64_t wire_number(const Chunk& chunk) const;

    Core& core_;
    State state_ = State::off;
    bool full_ = false;
    bool bits_prepared_ = false;
    bool bitmap_received_ = false;
    bool ready_received_ = false;
    std::vector<Chunk> chunks_;
    std::uint32_t busy_ = 0;
    std::uint32_t window_ = 1;  // chunks in flight; at least one, so the resync always goes on (D19)
    std::uint32_t next_serial_ = 1;
    std::uint64_t cursor_ = 0;  // block
    std::uint64_t done_bytes_ = 0;
    std::uint64_t total_bytes_ = 0;
    Instant pace_at_{};
};

}  // namespace gemel::replication
