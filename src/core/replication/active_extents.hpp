// ActiveExtents: the intent log in memory. A write may be submitted only while every 4 MiB extent it touches
// is active, that is, named by a stable log transaction (D3). An extent may leave only when nothing is in
// flight in it and everything written to it is stable here and on the peer, or its dirty bits are stable here
// (and the data is).
//
//            enter()                 transaction stable
//   absent ----------> entering ------------------------> active
//      ^                                                     |
//      +------------------- left out of a transaction -------+   (only when settled, see evictable())
//
// One transaction is in flight at a time; what comes meanwhile goes into the next (group commit). Requests
// that find no room wait in strict order and hold nothing while they wait, so the log cannot deadlock (D19,
// M4).
//
// A transaction costs a flush, so a cold extent brings its neighbours along: its aligned group, and a few
// more groups when the one before it has just been written (a sequential writer). They need no write to be
// named: more named than written is always safe, and costs a crash's resync some comparing. Nothing waits for
// them, and the unused ones give way first.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/replication/dirty_bitmap.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

using RoundId = std::uint64_t;      // of a flush round over the replicas (flush_rounds.hpp)
using Transaction = std::uint64_t;  // sequence of a log transaction

class ActiveExtents {
  public:
    ActiveExtents(const formats::Layout& layout, const ReplicaId& replica, std::uint32_t capacity,
                  DirtyBitmap& bitmap, std::uint32_t group = 1);

    // Extents of bytes [offset, offset + length). Not enough room: false, nothing was taken.
    [[nodiscard]] bool enter(std::uint64_t offset, std::uint64_t length, RoundId settled_round);
    // The transaction that must be stable before data may be submitted after a successful enter; 0: none.
    Transaction entered_transaction() const { return entered_transaction_; }
    // The write ended on all replicas it went to; it is settled when that round has ended.
    void leave(std::uint64_t offset, std::uint64_t length, RoundId settles_with, bool stable = false);
    // Blocks that will differ if the peer does not get this write (called at submission of a mirrored write).
    void touch(std::uint64_t offset, std::uint64_t length);
    // Every block touched and not settled becomes a dirty bit: the peer is out.
    void spill_unsettled(RoundId settled_round);
    // A dirty bit was set in these extents: they stay until it is stable.
    void note_dirty(std::uint64_t offset, std::uint64_t length);

    // -- room
    // true when nothing has to happen before `count` more extents fit
    bool room_for(std::uint64_t offset, std::uint64_t length, RoundId settled_round) const;
    // Ask for what would make room: bitmap pages of idle extents; tells whether a flush round is wanted too.
    bool make_room(RoundId settled_round);
    // Leave every settled extent out of the next transaction (the volume is idle or closing).
    void retire(RoundId settled_round);
    void forget_all();  // resync target: the source has taken them over

    // -- log
    void pump(Outputs& outputs);
    void written();
    bool writing() const { return writing_; }
    bool changed() const { return changed_; }
    Transaction stable() const { return stable_; }

    // -- attach
    void load(const formats::IntentTransaction& newest);
    void distrust() { changed_ = true; }  // what was loaded may not be stable: it is written again

    std::uint32_t used() const { return used_; }
    std::uint64_t unsettled_bytes(RoundId settled_round) const;
    bool all_settled(RoundId settled_round) const;
    // a write has ended that was not stable by itself, and no round has covered it; not one that is in flight
    bool ended_unstable(RoundId settled_round) const;
    std::uint32_t capacity() const { return static_cast<std::uint32_t>(slots_.size()); }

  private:
    static constexpr std::uint16_t kAbsent = 0xffff;
    static constexpr std::uint64_t kGroupsAhead = 4;   // of a sequential writer
    static constexpr std::uint64_t kJustWritten = 32;  // uses of the log: a deep queue of one stream
    struct Slot {
        std::uint32_t extent = 0;
        std::uint32_t users = 0;        // writes between enter and leave
        Transaction logged_by = 0;      // the transaction that names it
        RoundId settles_with = 0;       // last write ended before this round began
        RoundId unstable_until = 0;     // the last one that was not stable everywhere when it ended
        DirtyBitmap::Version bits = 0;  // page version of its last dirty bit
        std::uint64_t used_at = 0;      // 0: named ahead and not used yet
        bool taken = false;
        bool touched_any = false;
        std::array<std::uint64_t, formats::kBlocksPerExtent / 64> touched{};
    };
    bool settled(const Slot& slot, RoundId round) const {
        return slot.users == 0 && slot.settles_with <= round;
    }
    bool evictable(const Slot& slot, RoundId round) const;
    std::uint64_t absent_in(std::uint64_t first, std::uint64_t last) const;
    Slot* find_slot(RoundId settled_round, std::uint64_t first, std::uint64_t last);
    void name_neighbours(std::uint64_t first, std::uint64_t last, RoundId settled_round);
    bool just_written(std::uint64_t extent) const;
    bool runs_out(std::uint64_t first, std::uint64_t last) const;
    Slot& put(std::uint64_t extent, Slot& slot);
    void drop(Slot& slot);
    void load_one(std::uint32_t extent, Transaction sequence);
    void spill(Slot& slot);
    void touch_in(Slot& slot, std::uint64_t first_block, std::uint64_t last_block);

    formats::Layout layout_;
    ReplicaId replica_;
    DirtyBitmap& bitmap_;
    std::uint64_t group_;
    std::vector<Slot> slots_;
    std::vector<std::uint16_t> slot_of_;  // by extent
    std::vector<std::uint32_t> scratch_;  // extents of the transaction being built
    alignas(4096) std::array<std::byte, formats::kPageBytes> page_{};
    std::uint32_t used_ = 0;
    std::uint64_t uses_ = 0;
    Transaction stable_ = 0;
    Transaction entered_transaction_ = 0;
    bool writing_ = false;
    bool changed_ = false;  // the next transaction would differ from the last
};

}  // namespace gemel::replication
