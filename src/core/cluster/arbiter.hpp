// Arbiter: two voters, one silent. etcd refuses writes and that is right; the survivor may make its store a
// single member only with standing and proof (design note 0004; C3, C4's exception, C6; H1, H2, H27,
// H34-H36). One fencing at a time, one winner: turns alternate from the loss of the store, longer than a
// fencing takes; the node with more weighted guests has the first.
//
//   idle --store not quorate, peer silent on all paths--> waiting_turn --my turn, standing--> fencing
//     |  \--store not quorate, peer answers, own writes frozen--> asking --refused, no answer in ask_ms-->
//     waiting_turn |                                                              \--released (durable)-->
//     proven |  \--committed leave of the peer's life--> proven
//     \--operator: start --alone, confirm-down--> fencing or proven
//   fencing --verified off, of the lost life, in time--> proven --copy forced--> prepared --still proven-->
//   activating
//           \--failed--> waiting_turn (again after a pause, until the fence bound is over: then only
//           confirm-down)
//   activating --quorate--> idle
//   waiting_turn --the peer answers again, not asked yet--> idle
//   any --a message of the peer--> idle (proof is void; a prepared copy is deleted)
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "core/cluster/boot.hpp"
#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

enum class ProofKind : std::uint8_t { none, fence, leave, release, operator_word };

struct Proof {
    ProofKind kind = ProofKind::none;
    Incarnation incarnation;  // the life that is over
    Instant lost_at;          // its last sign
    Instant obtained_at;
    std::string device;
};

class Arbiter {
  public:
    enum class State : std::uint8_t {
        idle,
        asking,
        waiting_turn,
        fencing,
        proven,
        preparing,
        prepared,
        activating
    };

    // An attempt begins in the beginning of a turn or not in that turn; it is over, and the two nodes'
    // notions of when the store was lost may differ by the rest, before the other one's turn begins (H2).
    static constexpr Duration kTurnBegin = milliseconds(2500);
    static constexpr Duration kTurnSkew = milliseconds(1500);
    // What the turns add to two attempts, until the one whose turn is second has made its own.
    static constexpr Duration kTurnsCost = kTurnBegin * 2 + kTurnSkew;

    Arbiter(Context& context, Peers& peers, Boot& boot) : context_(context), peers_(peers), boot_(boot) {}
    void evaluate();
    // Any message of the peer, before it is looked at.
    void heard(const PeerMessage& message);
    void answered(const ReleaseAnswer& answer);
    // The operator vouches that the peer is off. Error: why not.
    Status confirm_down(const std::string& node);
    // The operator accepts loss: standing is not asked for. Error: why not now.
    Status start_alone();
    // Looks only; for plan_of().
    Status may_confirm_down(const std::string& node) const;
    Status may_start_alone() const;

    State state() const { return state_; }
    bool releasing_peer() const { return state_ == State::asking; }
    const std::string& why() const { return why_; }
    std::uint32_t weight_of(const std::string& node) const;
    bool accepting_loss() const { return accept_loss_; }

  private:
    void move(State to, const std::string& why);
    void reset(const std::string& why);
    bool standing() const { return context_.standing || accept_loss_; }
    bool need() const;
    bool storeless(const std::string& node) const;
    bool my_turn() const;
    bool proof_holds() const;
    Incarnation lost_life() const;
    std::string promotable_refusal() const;
    void idle();
    void ask();
    void wait_turn();
    void fence();
    void fenced(const FenceDone& done, Instant began, const Incarnation& life);
    void prepare();
    Txn first_commit();

    Context& context_;
    Peers& peers_;
    Boot& boot_;
    State state_ = State::idle;
    std::string why_;
    Instant since_;
    Instant unquorate_since_;
    bool was_quorate_ = true;
    std::string peer_;
    Proof proof_;
    Instant not_before_;
    bool fence_running_ = false;
    bool prepared_ = false;
    bool accept_loss_ = false;
    bool fenced_once_ = false;  // by the operator's order, while the peer answered
    bool refused_ = false;      // the peer was asked to release and refused, or did not answer in time
    OperationId ask_id_;
    LineageId new_lineage_;
};

}  // namespace gemel::cluster
