// Election: one coordinator at a time. The key is created under an etcd lease by a compare on its absence;
// its create revision is the term, compared by every transaction of the coordinator and looked at again when
// an action is executed.
//
//   follower --no key--> leasing --granted--> campaigning --committed--> coordinator --key gone, other, lease
//   lost--> follower
#pragma once

#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Election {
  public:
    static constexpr std::uint32_t kTtlSeconds = 5;
    static constexpr Duration kTermShownFor = seconds(1);  // no longer than a pause that costs the standing
    Election(Context& context, Peers& peers) : context_(context), peers_(peers) {}
    void granted(const LeaseGranted& lease);
    void lost(const LeaseLost& lease);
    void evaluate();
    void probed(const ReadDone& done);
    // Asked again before an action with an effect outside: the newest known table shows the term, and so did
    // a linearizable answer that was asked for at most a second ago.
    bool still_coordinator() const;

  private:
    void resign();
    bool own_member_learns() const;
    bool silent_in_its_term(const Row<CoordinatorRecord>& key);
    void give_up(bool mine);
    void depose(const Row<CoordinatorRecord>& key);
    Context& context_;
    Peers& peers_;
    bool leasing_ = false;
    bool campaigning_ = false;
    std::uint64_t lease_ = 0;
    Instant not_before_;
    std::uint64_t key_seen_ = 0;  // its term, and since when
    Instant key_seen_at_;
};

}  // namespace gemel::cluster
