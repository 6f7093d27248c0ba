// VolumeAgent: this node's part in its volumes: hands committed records to blockd, turns the engine's
// proposals into transactions (comparing volume revision, owner, epoch by it, and lineage; not the term),
// renews leases by linearizable reads, refuses epochs that are being revoked, tells which lives are proven
// over (design brief 3.1, 4).
#pragma once

#include <map>
#include <set>
#include <string>

#include "core/cluster/context.hpp"

namespace gemel::cluster {

class VolumeAgent {
  public:
    explicit VolumeAgent(Context& context) : context_(context) {}
    void blockd_up(const BlockdUp& up);
    void proposal(const BlockdProposal& proposal);
    void needs_record(const BlockdNeedsRecord& need);
    void probe(const ReadDone& done, const LineageId& lineage);
    void evaluate();
    bool owns_any() const;

  private:
    std::string refusal(const Row<VolumeRecord>& row, const replication::Propose& propose) const;
    void answer(const VolumeId& volume, std::uint64_t number, replication::ProposalOutcome outcome,
                std::optional<CommittedVolume> current);
    void hand_over(const Row<VolumeRecord>& row);

    Context& context_;
    struct Handed {
        std::uint64_t revision = 0;
        LineageId lineage;
    };
    std::map<VolumeId, Handed> handed_;
    std::map<VolumeId, std::uint64_t> proposing_;  // number of the proposal under way
    std::set<std::pair<std::string, Incarnation>> told_gone_;
};

}  // namespace gemel::cluster
