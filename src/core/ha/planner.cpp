#include "core/ha/planner.hpp"

#include <algorithm>
#include <set>

#include "base/mutant.hpp"
#include "core/cluster/volume_rules.hpp"

namespace gemel::ha {
namespace {

using namespace cluster;  // the planner speaks the control plane's words

class Planner {
  public:
    explicit Planner(const PlanInput& input) : input_(input), tables_(*input.tables) {}

    Plan make() {
        for (const auto& [name, row] : tables_.nodes) lost_node(row.record);
        guests();
        volumes();
        for (const auto& [name, row] : tables_.nodes) power_on(row.record);
        return std::move(plan_);
    }

  private:
    NodeFacts facts(const std::string& node) const {
        const auto at = input_.nodes.find(node);
        return at == input_.nodes.end() ? NodeFacts{} : at->second;
    }
    bool alive(const std::string& node) const { return facts(node).alive; }
    // may be given something new to do
    bool usable(const NodeRecord& node) const {
        const auto seen = facts(node.name);
        return node.state == NodeState::member && !node.drained && seen.alive && seen.acting &&
               seen.incarnation == node.incarnation && !node_gone(tables_, node.name);
    }
    std::string refusal(const VolumeRecord& volume, const std::string& node) const {
        return grant_refusal(tables_, volume, node, [this](const std::string& name) { return alive(name); });
    }
    const FenceDeviceRecord* device_for(const std::string& node) const {
        for (const auto& [name, row] : tables_.fence_devices) {
            if (row.record.node == node) return &row.record;
        }
        return nullptr;
    }

    // Is there anything that only the proof of this node's loss can bring back, on a replica elsewhere?
    bool worth_fencing(const NodeRecord& victim) const {
        std::set<std::string> at_stake;
        for (const auto& [name, row] : tables_.volumes) {
            if (row.record.owner && row.record.owner->node == victim.name) at_stake.insert(name);
        }
        for (const auto& [name, row] : tables_.guests) {
            if (row.record.wish != GuestWish::running || row.record.placement) continue;
            for (const auto& disk : row.record.disks) {
                const auto volume = tables_.volumes.find(disk.volume);
                if (volume != tables_.volumes.end() && in_ack_set(volume->second.record, victim.name)) {
                    at_stake.insert(disk.volume);
                }
            }
        }
        for (const auto& name : at_stake) {
            for (const auto& replica : tables_.volumes.at(name).record.replicas) {
                const bool elsewhere = replica.node != victim.name && alive(replica.node);
                if (elsewhere && promotable(tables_.volumes.at(name).record, replica.node)) return true;
            }
        }
        return false;
    }

    void lost_node(const NodeRecord& node) {
        if (node.name == input_.self || node.incarnation.is_nil() || node_gone(tables_, node.name)) return;
        const auto seen = facts(node.name);
        if (seen.alive || !worth_fencing(node)) return;
        const std::string object = "node/" + node.name;
        // A confirm-down is under way: the operator's word, waited out by the coordinator.
        if (node.fence.state == FenceState::requested && node.fence.device == "operator") return;
        if (fencing_) return plan_.push_back(Blocked{object, "another node is being fenced; one at a time"});
        fencing_ = true;
        const auto silent = input_.now - seen.lost_since;
        if (seen.answers && !seen.release_refused && !mutant("ask_skipped")) {
            const auto grace =
                milliseconds(tables_.cluster ? tables_.cluster->record.timing.restart_grace_ms : 15000);
            if (silent < grace) {
                return plan_.push_back(
                    Blocked{object, "its daemons are silent but its store member answers: restart grace"});
            }
            return plan_.push_back(AskNode{node.name, node.incarnation});
        }
        const auto* device = device_for(node.name);
        if (device == nullptr) {
            return plan_.push_back(Blocked{
                object, "it is silent and has no fence device; 'gemel node confirm-down " + node.name + "'"});
        }
        const bool requested =
            node.fence.state == FenceState::requested && node.fence.incarnation == node.incarnation;
        if (!requested) return plan_.push_back(RequestFence{node.name, node.incarnation});
        const auto retry = input_.fence_retry_not_before.find(node.name);
        if (retry != input_.fence_retry_not_before.end() && input_.now < retry->second) {
            return plan_.push_back(Blocked{object, "the last fencing failed; it is tried again"});
        }
        plan_.push_back(RunFence{node.name, node.incarnation, device->name});
    }

    // Silence proves nothing: its life is proven over, or its guests are left alone (C3).
    bool proven_lost(const PlacementRecord& placement) const {
        if (mutant("promote_unfenced") && !alive(placement.node)) return true;
        return proven_gone(tables_, placement.node, placement.incarnation);
    }

    void guests() {
        std::vector<const GuestRecord*> order;
        for (const auto& [name, row] : tables_.guests) order.push_back(&row.record);
        std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
            return a->priority != b->priority ? a->priority > b->priority : a->name < b->name;
        });
        for (const auto* guest : order) {
            const bool lost = guest->placement && proven_lost(*guest->placement);
            if (guest->placement && !lost) continue;
            if (guest->wish == GuestWish::stopped) {
                if (lost)
                    plan_.push_back(
                        ReleaseGuest{guest->name, "its node " + guest->placement->node + " is lost"});
                continue;
            }
            place(*guest, lost);
        }
    }

    void place(const GuestRecord& guest, bool lost) {
        const std::string object = "vm/" + guest.name;
        const bool bounded = !mutant("restarts_unbounded");
        if (bounded && (guest.restarts >= GuestRecord::kMaxRestarts ||
                        guest.host_losses >= GuestRecord::kMaxHostLosses)) {
            plan_.push_back(Blocked{object,
                                    "out of restarts (" + std::to_string(guest.restarts) +
                                        "): " + guest.last_error + "; 'gemel vm start " + guest.name +
                                        "' tries again",
                                    true});
            if (lost) plan_.push_back(ReleaseGuest{guest.name, "its node is lost and it is out of restarts"});
            return;
        }
        const auto retry = input_.retry_not_before.find(guest.name);
        const bool first_loss = lost && guest.restarts == 0;
        if (bounded && !first_loss && retry != input_.retry_not_before.end() && input_.now < retry->second) {
            return plan_.push_back(Blocked{object, "waits before it is started again: " + guest.last_error});
        }
        std::string why;
        for (const auto& node : candidates(guest, lost)) {
            const std::string refused = refusal_on(guest, node);
            if (refused.empty()) {
                for (const auto& disk : guest.disks) taken_.insert(disk.volume);
                ++load_[node];
                return plan_.push_back(GrantGuest{guest.name, node, lost});
            }
            why += (why.empty() ? "" : "; ") + node + ": " + refused;
        }
        plan_.push_back(Blocked{object, why.empty() ? "no node can take it now" : why});
    }

    std::string refusal_on(const GuestRecord& guest, const std::string& node) const {
        for (const auto& disk : guest.disks) {
            const auto volume = tables_.volumes.find(disk.volume);
            if (volume == tables_.volumes.end()) return "volume " + disk.volume + " does not exist";
            if (taken_.contains(disk.volume))
                return "volume " + disk.volume + " is being given to another guest";
            if (auto why = refusal(volume->second.record, node); !why.empty()) return why;
        }
        return {};
    }

    // Who is ready comes first: the node whose life ended with this guest may be back already, still booting
    // its volumes, while the survivor could serve at once. Going home is a decision of its own, never a
    // failover's.
    std::vector<std::string> candidates(const GuestRecord& guest, bool lost) {
        if (load_.empty()) {
            for (const auto& [name, row] : tables_.guests) {
                if (row.record.placement) ++load_[row.record.placement->node];
            }
        }
        std::vector<std::string> names;
        for (const auto& [name, row] : tables_.nodes) {
            if (!usable(row.record)) continue;
            if (!guest.pinned_node.empty() && guest.pinned_node != name) continue;
            names.push_back(name);
        }
        const std::string left = lost ? guest.placement->node : "";
        std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) {
            if ((a == left) != (b == left)) return b == left;
            const bool a_preferred = a == guest.preferred_node;
            const bool b_preferred = b == guest.preferred_node;
            if (a_preferred != b_preferred) return a_preferred;
            return load_[a] < load_[b];
        });
        // What failed here may work there.
        const bool failing = guest.restarts > guest.host_losses && names.size() > 1;
        if (failing) {
            const auto turns = static_cast<std::ptrdiff_t>(guest.restarts % names.size());
            std::rotate(names.begin(), names.begin() + turns, names.end());
        }
        return names;
    }

    // Leases of lost lives that no guest will take over.
    void volumes() {
        for (const auto& [name, row] : tables_.volumes) {
            const auto& owner = row.record.owner;
            if (!owner || taken_.contains(name) || !proven_gone(tables_, owner->node, owner->incarnation))
                continue;
            bool wanted = false;
            for (const auto& [guest, guest_row] : tables_.guests) {
                if (owner->purpose != "vm:" + guest) continue;
                wanted =
                    guest_row.record.wish == GuestWish::running || guest_row.record.placement.has_value();
            }
            if (!wanted) plan_.push_back(ReleaseVolume{name, "its owner " + owner->node + " is lost"});
        }
    }

    void power_on(const NodeRecord& node) {
        if (node.fence.state != FenceState::verified || node.fence.power_on_done ||
            node.fence.incarnation != node.incarnation ||
            !tables_.fence_devices.contains(node.fence.device)) {
            return;
        }
        plan_.push_back(PowerOnVictim{node.name, node.fence.device});
    }

    const PlanInput& input_;
    const Tables& tables_;
    Plan plan_;
    bool fencing_ = false;
    std::set<std::string> taken_;
    std::map<std::string, std::uint32_t> load_;
};

}  // namespace

Plan plan(const PlanInput& input) {
    return Planner(input).make();
}

}  // namespace gemel::ha
