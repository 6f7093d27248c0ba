// ClusterNode: the control plane of one node as one pure machine. Promises C1-C12 as far as they are this
// node's; which rule stands where is in docs/design/0003, 0004 and 0006. Not here: sockets, etcd, libvirt,
// fence agents, time.
//
//   first input: BootFacts; then anything in any order. Single-threaded; one owner.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/cluster/interface.hpp"
#include "core/cluster/planner_port.hpp"
#include "core/cluster/view.hpp"

namespace gemel::cluster {

class ClusterNode {
  public:
    // planner: ha::plan in the product and the simulator. error of check_time_chain(config.timing) is the
    // caller's to look at before.
    ClusterNode(NodeConfig config, PlanFunction planner);
    ~ClusterNode();
    ClusterNode(const ClusterNode&) = delete;
    ClusterNode& operator=(const ClusterNode&) = delete;

    // Appends to outputs. now never goes back.
    void step(Instant now, const Input& input, Outputs& outputs);
    // When step(Tick) is needed next at the latest (never later than 250 ms from the last one).
    Instant next_deadline() const;

    // ---- reading, for the API ----
    StatusView status() const;
    Result<ExplainView> explain(const std::string& kind, const std::string& name) const;
    // action: PlanAction of the API; node: where the action takes one; with_volumes: vm.delete, its disks too
    Result<PlanView> plan_of(const std::string& action, const std::string& object, const std::string& node,
                             bool with_volumes) const;
    std::vector<FenceDeviceView> fence_devices() const;
    std::vector<EventView> events(std::uint64_t after, std::size_t limit) const;
    // unfinished ones and the last finished ones, newest first
    std::vector<OperationRecord> operations() const;
    Result<OperationRecord> operation(const OperationId& id) const;
    // last known tables, newest first seen; may be behind the store, and ahead of what the node acts on
    const Tables& tables() const;
    bool has_standing() const;
    bool is_coordinator() const;
    bool is_acting() const;  // rejoined: registered, boot check passed, store quorate
    // where its parts stand, in the words of their state charts; for whoever counts what was reached
    struct States {
        std::string_view boot;
        std::string_view arbiter;
        std::string_view releaser;
        std::string_view store;
    };
    States states() const;

    class Impl;  // core/cluster only

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::cluster
