// ControlChecker: what the control plane may do outside and when (promises C1-C4, C6, C10). It is told what
// is done (fence, force, start, answer a proposal) and what is true (who met whom, what arrived, what the
// store decided), and judges one against the other; it knows nothing of the machines' own states.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/ids.hpp"
#include "base/instant.hpp"
#include "core/cluster/store.hpp"
#include "core/formats/records.hpp"

namespace gemel::sim {

class ControlChecker {
  public:
    // -- what is true
    // clusterd started, or its host stood still for more than a second
    void life_began(std::uint32_t node, Instant now) {
        since_[node] = now;
        met_[node] = false;
    }
    // a linearizable answer to a question of that time
    void store_answered(std::uint32_t node, Instant sent_at) {
        if (sent_at >= since_[node]) met_[node] = true;
    }
    void heard(std::uint32_t node, const Incarnation& from, Instant now);
    void asked_to_release(std::uint32_t node, const Incarnation& victim) { asked_[node].insert(victim); }
    void operator_overrides(std::uint32_t node) { overridden_[node] = true; }
    void operator_starts_guest() { starts_ = 0; }
    void coordinator_is(std::optional<std::uint32_t> node, Instant now);

    // -- what is done; empty when it was right
    // quorate: the store answers this node
    std::string fence(std::uint32_t by, const Incarnation& victim, bool quorate, Instant now);
    // a device said that this life is off; the proof is acted on
    void proven(std::uint32_t by, const Incarnation& victim, Instant began);
    std::string force(std::uint32_t node);
    std::string activate(std::uint32_t node);
    std::string powered_off_by_fence(std::uint32_t victim, std::uint32_t by, Instant began, Instant now);
    std::string guest_started();
    void guest_ran_long() { starts_ = 0; }
    // a transaction lands in this lineage and term
    std::string landed(const cluster::Txn& txn, const std::string& lineage, std::uint64_t term) const;
    // a device's word was committed; `life` is the one it is about
    std::string fence_committed(std::uint32_t by, const Incarnation& life, const Incarnation& living,
                                bool powered, bool lied);
    // a node's record was committed: the present life of its store member is never called a former one, or
    // that member takes itself for an old image and goes aside (H39)
    static std::string nonce_committed(const NodeRecord& record);
    // nobody takes himself for lost
    static std::string word_committed(const NodeRecord& record);

    // The operator's word counts as proof from now on. How long ago the lost owner's epoch was committed as
    // revoking, and how long ago the survivor's blockd had refused it durably; none: not at all.
    std::string word_counts(std::uint32_t victim, std::optional<Duration> revoking,
                            std::optional<Duration> refused, Duration bound) const;
    // clusterd destroys a domain that has every right to run: committed here, in this epoch, wanted, served.
    // "Served" means by a disk that has all it was told: a guest over the network whose only copy rebooted
    // with unflushed writes of this epoch gets nothing but errors, and begins anew where that copy is (K2).
    std::string destroyed_rightful(std::uint32_t node, const std::string& why) const;

  private:
    struct Heard {
        Incarnation from;
        Instant first{0};
        Instant last{-1};
    };
    std::array<Instant, 2> since_{};
    std::array<bool, 2> met_{};
    std::array<bool, 2> overridden_{};
    std::array<Heard, 2> heard_{};
    std::array<std::set<Incarnation>, 2> asked_;
    struct Proof {
        Incarnation victim;
        Instant began;
    };
    std::array<std::optional<Proof>, 2> proofs_;
    std::array<Instant, 2> fenced_off_{Instant{-1}, Instant{-1}};  // by the other
    std::optional<std::uint32_t> coordinator_;
    Instant coordinator_since_{0};
    std::uint32_t starts_ = 0;
};

}  // namespace gemel::sim
