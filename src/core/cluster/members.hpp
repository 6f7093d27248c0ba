// Members: the coordinator's care for the store's voters (design brief 3.3, 3.5). One change at a time, each
// announced in the cluster record before etcd is told and closed after it; learner first.
//
//   stable --a node waits to join, still listed--> removing --etcd removed it--> stable
//   stable --a node waits to join--> adding --learner in etcd, offered--> caught up --promoted--> stable
//   (voter) stable --witness silent for long, all nodes healthy--> removing --> stable (two voters)
//   stable, no witness, all nodes voters and healthy --learner in etcd; it waits there--> stable
//      --that learner answers and has caught up--> adding --promoted--> stable (three voters)
//
// A learner counts for no quorum, so a witness that is away may be one for as long as it likes; etcd has room
// for one learner, and a node that waits to join comes first.
#pragma once

#include <map>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Members {
  public:
    Members(Context& context, Peers& peers) : context_(context), peers_(peers) {}
    void evaluate();

  private:
    const StoreMemberView* member(const VoterRecord& voter) const;
    const VoterRecord* known(const std::string& name) const;
    void adding(const ClusterRecord& cluster);
    void removing(const ClusterRecord& cluster);
    void look_for_work(const ClusterRecord& cluster);
    bool listed(const ClusterRecord& cluster, const std::string& name) const;
    bool witness_to_remove(const VoterRecord& voter);
    void adding_witness(const ClusterRecord& cluster, const VoterRecord& voter, const StoreMemberView& there);
    void bring_back_witness(const ClusterRecord& cluster);
    bool all_nodes_vote(const ClusterRecord& cluster) const;
    const StoreMemberView* other_learner(const VoterRecord& voter) const;
    bool vouch(const std::string& name, const Uuid& nonce);
    void commit(ClusterRecord next, const std::string& what);
    void command(StoreCommandKind command);

    Context& context_;
    Peers& peers_;
    bool busy_ = false;
    Instant repeat_at_;
    std::map<std::string, Instant> witness_seen_;
    Instant adding_since_;      // the witness
    Instant witness_retry_at_;  // etcd refuses a learner while it finds a voter unhealthy
};

}  // namespace gemel::cluster
