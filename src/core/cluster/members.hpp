// Members: the coordinator's care for the store's voters (design brief 3.3, 3.5). One change at a time, each
// announced in the cluster record before etcd is told and closed after it; learner first.
//
//   stable --a node waits to join, still listed--> removing --etcd removed it--> stable
//   stable --a node waits to join--> adding --learner in etcd, offered--> caught up --promoted--> stable
//   (voter) stable --witness silent for long, all nodes healthy--> removing --> stable (two voters)
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
    bool vouch(const std::string& name, const Uuid& nonce);
    void commit(ClusterRecord next, const std::string& what);
    void command(StoreCommandKind command);

    Context& context_;
    Peers& peers_;
    bool busy_ = false;
    Instant repeat_at_;
    std::map<std::string, Instant> witness_seen_;
};

}  // namespace gemel::cluster
