#include "sim/checkers/control.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace gemel::sim {
namespace {

constexpr Duration kContinuous =
    milliseconds(800);  // heartbeats this close belong to one stretch of being heard
constexpr Duration kLongHeard = seconds(3);
// what an old coordinator may still have begun before it could know
constexpr Duration kTermKnown = milliseconds(1500);
constexpr std::uint32_t kMostStarts = 10;  // restarts and host losses between two orders of the operator

}  // namespace

void ControlChecker::heard(std::uint32_t node, const Incarnation& from, Instant now) {
    Heard& known = heard_[node];
    if (known.from != from || now - known.last > kContinuous) known = {from, now, now};
    known.last = now;
}

void ControlChecker::coordinator_is(std::optional<std::uint32_t> node, Instant now) {
    if (node == coordinator_) return;
    coordinator_ = node;
    coordinator_since_ = now;
}

std::string ControlChecker::fence(std::uint32_t by, const Incarnation& victim, bool quorate, Instant now) {
    if (!met_[by] && !overridden_[by])
        return fmt::format("node{} fences without having met a quorate store in this life", by + 1);
    const Heard& known = heard_[by];
    const bool heard_long =
        known.from == victim && now - known.last <= kContinuous && now - known.first >= kLongHeard;
    if (heard_long && !asked_[by].contains(victim) && !overridden_[by])
        return fmt::format("node{} fences a node that answers, and has not asked it to release", by + 1);
    const bool other = coordinator_ && *coordinator_ != by && now - coordinator_since_ > kTermKnown;
    if (quorate && other) return fmt::format("node{} fences, its term has been over for long", by + 1);
    return {};
}

void ControlChecker::proven(std::uint32_t by, const Incarnation& victim, Instant began) {
    proofs_[by] = Proof{victim, began};
}

std::string ControlChecker::force(std::uint32_t node) {
    if (!met_[node] && !overridden_[node])
        return fmt::format("node{} forces a single member without standing", node + 1);
    return {};
}

// Any message of the life whose end was proven, since the attempt began, voids the proof.
std::string ControlChecker::activate(std::uint32_t node) {
    const auto proof = std::exchange(proofs_[node], std::nullopt);
    if (!proof || heard_[node].from != proof->victim || heard_[node].last <= proof->began) return {};
    return fmt::format("node{} acts on a proof that a message of its peer has voided", node + 1);
}

std::string ControlChecker::powered_off_by_fence(std::uint32_t victim, std::uint32_t by, Instant began,
                                                 Instant now) {
    fenced_off_[victim] = now;
    if (fenced_off_[by] < began) return {};
    return fmt::format("node{} and node{} have fenced each other: both are off", victim + 1, by + 1);
}

std::string ControlChecker::guest_started() {
    if (++starts_ <= kMostStarts) return {};
    return fmt::format("the guest was started {} times since the operator last asked for it", starts_);
}

std::string ControlChecker::landed(const cluster::Txn& txn, const std::string& lineage,
                                   std::uint64_t term) const {
    if (!txn.lineage.empty() && txn.lineage != lineage)
        return "a transaction based on one lineage lands in another";
    if (txn.term != 0 && txn.term != term)
        return fmt::format("a transaction of term {} lands in term {}", txn.term, term);
    return {};
}

std::string ControlChecker::fence_committed(std::uint32_t by, const Incarnation& life,
                                            const Incarnation& living, bool powered, bool lied) {
    if (life == living && powered && !lied) return "a fence is committed as verified for a life that goes on";
    if (!proofs_[by] || proofs_[by]->victim != life) return {};
    // judged once: what is heard of that life later (of one that a device lied about) voids nothing any more
    const auto proof = std::exchange(proofs_[by], std::nullopt);
    if (heard_[by].from == life && heard_[by].last > proof->began)
        return fmt::format("node{} commits a fence that a message of its victim has voided", by + 1);
    return {};
}

std::string ControlChecker::nonce_committed(const NodeRecord& record) {
    const auto& former = record.former_nonces;
    if (std::ranges::find(former, record.member_nonce) == former.end()) return {};
    return fmt::format("the record of {} names the present life of its store member as a former one",
                       record.name);
}

std::string ControlChecker::word_committed(const NodeRecord& record) {
    if (record.fence.state != FenceState::confirmed_down || record.fence.by != record.name) return {};
    return fmt::format("{} takes itself for lost by the operator's word", record.name);
}

std::string ControlChecker::word_counts(std::uint32_t victim, std::optional<Duration> revoking,
                                        std::optional<Duration> refused, Duration bound) const {
    const Duration least = bound - bound / 100;  // clocks drift
    const auto early = [&](const std::optional<Duration>& since) { return !since || *since < least; };
    if (!early(revoking) && !early(refused)) return {};
    const auto text = [](const std::optional<Duration>& since) {
        return since ? fmt::format("{:.1f} s ago", since->seconds()) : std::string("not at all");
    };
    return fmt::format(
        "node{} is taken for lost by the operator's word before the bound of {:.1f} s: its epoch was "
        "committed "
        "as revoking {}, and refused durably {}",
        victim + 1, bound.seconds(), text(revoking), text(refused));
}

std::string ControlChecker::destroyed_rightful(std::uint32_t node, const std::string& why) const {
    return fmt::format("clusterd on node{} destroys a guest that has the right to run there ('{}')", node + 1,
                       why);
}

}  // namespace gemel::sim
