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
    Election(Context& context, Peers& peers) : context_(context), peers_(peers) {}
    void granted(const LeaseGranted& lease);
    void lost(const LeaseLost& lease);
    void evaluate();
    // The term as of the newest known table: what is asked again before an action with an effect outside.
    bool still_coordinator() const;

  private:
    void resign();
    bool own_member_learns() const;
    void give_up(bool mine);
    void depose(const Row<CoordinatorRecord>& key);
    Context& context_;
    Peers& peers_;
    bool leasing_ = false;
    bool campaigning_ = false;
    std::uint64_t lease_ = 0;
    Instant not_before_;
};

}  // namespace gemel::cluster
