// TxnQueue: the chain of one node's transactions. One is under way at a time; each compares and moves the
// node's own key applied/<node>, so that its outcome can always be read back (H10), and, where asked, is
// followed by a barrier whose success alone makes it committed (H34). Results come exactly once. Pure.
//
//   idle -submit-> main -committed-> [barrier wanted] barrier -committed-> idle (committed)
//                   |  \-compare_failed-> refreshing -read-> idle (refused)
//                   |                        ^
//                   \-unknown-> reading -not ours-> sealing -committed-> idle (refused: it can never land any
//                   more)
//                                 |  ^                |
//                                 |  \----------------/ compare_failed or unknown: read again
//                                 \-ours-> barrier or idle (committed)
//   barrier -compare_failed, unknown-> reading (ours: again; the barrier's own id: committed)
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/instant.hpp"
#include "base/prng.hpp"
#include "core/cluster/interface.hpp"

namespace gemel::cluster {

using JobId = std::uint64_t;

struct JobResult {
    JobId job = 0;
    bool committed = false;
    std::uint64_t revision = 0;  // of the transaction itself, when committed
};

class TxnQueue {
  public:
    static constexpr std::size_t kMaxQueued = 512;
    static constexpr Duration kRetry = milliseconds(200);

    explicit TxnQueue(std::string node) : node_(std::move(node)) {}

    // lineage: value of the lineage key it is based on; empty only for the bootstrap. urgent: before those
    // that wait. Always answered; at once (refused) when the queue is full.
    JobId submit(Txn txn, std::string lineage, bool urgent, bool barrier);
    bool idle() const { return state_ == State::idle && queue_.empty(); }
    std::size_t waiting() const { return queue_.size() + (state_ == State::idle ? 0 : 1); }

    // mod revision of applied/<node> as read with a table snapshot (0: no such key)
    void chain_revision(std::uint64_t revision);
    void txn_done(Instant now, const TxnDone& done, Outputs& outputs);
    // true when the read was this queue's
    bool read_done(Instant now, const ReadDone& done, Outputs& outputs);
    // Sends what can be sent. Tags are taken from next_tag.
    void pump(Instant now, Tag& next_tag, Prng& prng, Outputs& outputs);
    std::vector<JobResult> take_results();

  private:
    enum class State : std::uint8_t { idle, main, barrier, reading, refreshing, sealing };
    struct Job {
        JobId id = 0;
        Txn txn;
        std::string lineage;
        bool barrier = false;
        bool urgent = false;
    };

    void finish(bool committed);
    void main_committed(std::uint64_t revision);
    void sealed(const TxnDone& done);
    void answered(const AppliedRecord& applied, std::uint64_t revision);
    void send(std::string kind, Txn txn, Tag& next_tag, Prng& prng, Outputs& outputs);

    std::string node_;
    std::deque<Job> queue_;
    std::optional<Job> current_;
    State state_ = State::idle;
    Tag tag_ = 0;  // outstanding request, 0: none
    Instant not_before_;
    OperationId main_id_;  // what applied/<node> will say when the current job landed
    OperationId link_id_;  // ... and its barrier or seal
    std::optional<std::uint64_t> chain_revision_;
    std::uint64_t main_revision_ = 0;
    JobId next_job_ = 1;
    std::vector<JobResult> results_;
};

}  // namespace gemel::cluster
