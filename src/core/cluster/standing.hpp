// Standing: may this node force a single-member store, or fence without a quorum? Only if it has met its peer
// in a quorate store in this life, and its clock ticks had no gap over a second since that meeting (promise
// C6, scenarios H27, H36).
//
//   none --a linearizable answer, asked after the last gap--> standing --gap over 1 s between steps--> none
#pragma once

#include "base/instant.hpp"
#include "base/mutant.hpp"

namespace gemel::cluster {

class Standing {
  public:
    static constexpr Duration kMaxGap = seconds(1);

    void tick(Instant now) {
        if (started_ && now - last_tick_ > kMaxGap) {
            met_ = false;
            gap_at_ = now;
        }
        started_ = true;
        last_tick_ = now;
    }
    // A store of which the peer is (or was, by majority) a part answered a question sent then.
    void met(Instant sent_at) {
        if (sent_at >= gap_at_) {
            met_ = true;
            met_at_ = sent_at;
        }
    }
    bool holds() const { return met_ || mutant("standing_ignored"); }
    Instant met_at() const { return met_at_; }

  private:
    bool started_ = false;
    bool met_ = false;
    Instant last_tick_;
    Instant gap_at_;
    Instant met_at_;
};

}  // namespace gemel::cluster
