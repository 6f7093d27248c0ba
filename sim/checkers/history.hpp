// History: what the guest was told, and so what it may be shown. Keeps for each sector the writes that may
// still be visible, with when they began and ended, and judges reads (promise D12: the last acknowledged or a
// concurrent write) and lost writes (promise D1: a write that completed before an acknowledged FLUSH began,
// FUA, or any write in mode stable, survives everything; an acknowledged write survives until every replica
// that was in the ack set has lost its volatile contents). It is the reference model: it knows nothing of
// engines, only requests, completions and losses.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/instant.hpp"
#include "sim/world/payload.hpp"

namespace gemel::sim {

using WriteNumber = std::uint32_t;  // 0: the zeroes a new volume begins with

class History {
  public:
    explicit History(std::uint64_t data_bytes);

    // -- what happened
    WriteNumber begin_write(Instant now, std::uint64_t offset, std::uint64_t length, bool zeroes);
    // acknowledged; `ack_mask` has a bit for each node in the ack set now; `stable`: FUA or mode stable
    void write_acknowledged(Instant now, WriteNumber write, std::uint32_t ack_mask, bool stable);
    // ended without success (error, or its guest died): it may have happened or not, but no later than now
    void write_ended(Instant now, WriteNumber write);
    // writes that this flush, begun then, made stable; in the order of their completion
    std::vector<WriteNumber> flush_acknowledged(Instant begun);
    // a node lost what was not stable on it (power cut, dead disk)
    void node_lost_volatile(std::uint32_t node) { ++losses_[node]; }

    // -- judgement
    // the stamp a write puts on the disk
    Stamp stamp_of(WriteNumber write) const { return writes_[write].zeroes ? kZeroes : Stamp{write}; }
    // empty when a read of that sector, begun at `begun`, may show `shown`; otherwise why not
    std::string judge(Instant begun, std::uint64_t sector, Stamp shown) const;
    // the same, and remembers that it was shown: what was read once stays (scenario W2)
    std::string observe(Instant begun, Instant now, std::uint64_t sector, Stamp shown);
    // That node lost its cache with a write in it which began since then and which no flush has covered.
    bool forgot(std::uint32_t node, Instant since) const;
    // empty when a replica that holds `write` may hold `shown` there: that write or one not before it
    std::string judge_holds(WriteNumber write, std::uint64_t sector, Stamp shown) const;

    // the stamp of something that may still be there: nothing that was flushed ended after it and hides it
    bool known(std::uint64_t sector, Stamp shown) const;

    struct Write {
        Instant begun;
        Instant ended = Instant::never();
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
        bool zeroes = false;
        bool acknowledged = false;
        bool stable = false;
        std::uint32_t ack_mask = 0;
        // a replica may answer and lose its cache before the guest is told
        std::array<std::uint32_t, 2> losses_when_begun{};
    };
    const Write& write(WriteNumber number) const { return writes_[number]; }
    std::uint32_t losses(std::uint32_t node) const { return losses_[node]; }
    std::size_t writes() const { return writes_.size() - 1; }
    // sectors that were ever written, each once, ascending ranges of blocks
    const std::vector<std::uint64_t>& touched_blocks() const { return touched_; }

  private:
    struct Version {
        WriteNumber write = 0;
        std::uint32_t next = 0;  // index + 1
        Instant seen_begun{-1};  // newest read that showed it
        Instant seen_ended{-1};
        std::uint32_t losses_when_seen = 0;
    };
    bool lost(const Write& write) const;
    struct Sector {
        std::uint32_t head = 0;  // its newest version, index + 1; 0: only the first zeroes
        std::uint32_t seen = 0;  // index + 1; 0: never read
    };
    // Of the reads of a sector: the newest, what it showed, and when anything else was last shown at the
    // latest.
    struct Seen {
        WriteNumber last = 0;
        Instant last_begun{-1};
        Instant other_begun{-1};
    };
    struct Found {
        std::uint32_t version = 0;  // index + 1; 0: nobody ever wrote that there
        bool allowed = false;
    };
    Found find(std::uint64_t sector, Stamp shown, Instant begun) const;
    bool shows(WriteNumber write, Stamp stamp) const {
        return stamp == kZeroes ? writes_[write].zeroes : stamp == write && !writes_[write].zeroes;
    }
    bool allowed(std::uint64_t sector, const Version& version, Instant begun) const;
    bool hidden_by_a_read(std::uint64_t sector, const Version& version, Instant begun) const;
    void remember_seen(std::uint64_t sector, WriteNumber write, Instant begun);
    void forget_hidden(std::uint64_t sector, const Write& by);
    std::uint32_t total_losses() const { return losses_[0] + losses_[1]; }
    std::string describe(std::uint64_t sector, Stamp shown) const;

    std::vector<Write> writes_;
    std::vector<Sector> sectors_;
    std::vector<Seen> seen_;
    std::vector<Version> versions_;
    std::vector<std::uint32_t> free_versions_;
    std::deque<WriteNumber> unstable_;  // acknowledged, not yet covered by a flush; by completion
    std::array<std::uint32_t, 2> losses_{};
    std::vector<std::uint64_t> touched_;
};

}  // namespace gemel::sim
