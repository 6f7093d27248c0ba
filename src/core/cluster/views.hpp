// Views: makes the answers of view.hpp from one node's machine. Read only. Not for use outside core/cluster.
#pragma once

#include <string>
#include <vector>

#include "core/cluster/node_impl.hpp"
#include "core/cluster/view.hpp"

namespace gemel::cluster {

class Views {
  public:
    explicit Views(const ClusterNode::Impl& node)
        : node_(node), context_(node.context), tables_(pick(node)) {}

    StatusView status() const;
    StoreView store() const;
    NodeView node(const NodeRecord& record) const;
    VolumeView volume(const Row<VolumeRecord>& row) const;
    GuestView guest(const GuestRecord& record) const;
    std::vector<FenceDeviceView> fence_devices() const;
    std::vector<ProblemView> problems() const;
    Result<ExplainView> explain(const std::string& kind, const std::string& name) const;
    Result<PlanView> plan(const std::string& action, const std::string& object, const std::string& node,
                          bool with_volumes) const;
    std::vector<OperationRecord> operations() const;

  private:
    static const Tables& pick(const ClusterNode::Impl& node) { return node.context.latest; }
    std::string node_state(const NodeRecord& record) const;
    bool connects_to(const std::string& node) const;
    std::vector<RungView> rungs(const NodeRecord& record) const;
    std::string volume_state(const VolumeRecord& record) const;
    std::string guest_why(const GuestRecord& record) const;
    bool alive(const std::string& node) const;
    const VolumeFacts* facts(const VolumeRecord& record) const;
    void store_problems(std::vector<ProblemView>& out) const;
    void path_problems(const NodeView& node, std::vector<ProblemView>& out) const;
    void node_problems(std::vector<ProblemView>& out) const;
    void volume_problems(std::vector<ProblemView>& out) const;
    void guest_problems(std::vector<ProblemView>& out) const;
    ExplainView explain_guest(const GuestRecord& record) const;
    ExplainView explain_node(const NodeRecord& record) const;
    ExplainView explain_volume(const Row<VolumeRecord>& row) const;
    PlanView plan_confirm_down(const std::string& node) const;
    PlanView plan_leave(const std::string& node) const;
    PlanView plan_volume(const std::string& action, const Row<VolumeRecord>& row,
                         const std::string& node) const;

    const ClusterNode::Impl& node_;
    const Context& context_;
    const Tables& tables_;
};

}  // namespace gemel::cluster
