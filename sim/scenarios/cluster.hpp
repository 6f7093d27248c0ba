// Cluster: the control plane's part of a stage: what an operator types, faults of stores, fence devices and
// paths that only it notices, and what status says. The stage must have been made with real_control.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "sim/scenarios/stage.hpp"
#include "sim/world/control_plane.hpp"

namespace gemel::sim {

class Cluster {
  public:
    explicit Cluster(Stage& stage) : stage_(stage) {}

    // -- the operator
    struct Answer {
        bool accepted = false;
        std::string text;  // why not
        OperationId operation;
    };
    // asks that node and waits for its answer
    Answer ask(std::uint32_t node, const cluster::ApiCommand& command, const std::string& shown);
    // how an accepted one ended: "succeeded", "failed: why"; as that node knows it
    std::string outcome(std::uint32_t node, const Answer& answer, Duration bound);

    // -- faults
    void power_cut_with_bmc(std::uint32_t node);
    // all paths between the two nodes; with their fence devices' network or without
    void part(bool with_management);
    void heal_parted();
    void cut_management(std::uint32_t victim, bool cut);  // only the way to that node's device
    void cut_off(std::uint32_t node, bool cut);           // that node from the other and from the witness
    void witness(bool up);
    // what gemel-witness does when its etcd says that it was removed, or its disk is empty
    void witness_begins_anew();
    void kill_store(std::uint32_t node);
    void restart_clusterd(std::uint32_t node);
    // clusterd, etcd, blockd of one node after the other; the guest writes after each node (blocks 20 and 21)
    void restart_all_daemons();

    // -- transactions to be held back or left unanswered (StoreModel)
    static bool touches(const cluster::Txn& txn, std::string_view prefix);
    // replicas in the ack set of the volume's record that it writes; 0: it writes none
    static std::size_t ack_set_in(const cluster::Txn& txn);

    // -- looking
    ControlPlane& plane() { return *stage_.world().plane(); }
    StoreModel& store() { return plane().store(); }
    const cluster::Tables& truth() { return plane().truth(); }
    const cluster::ClusterNode* clusterd(std::uint32_t node) { return plane().clusterd(node); }
    std::uint64_t fenced(std::uint32_t node) const { return stage_.count("fence.verified", node); }
    std::uint64_t fences_begun(std::uint32_t node) const { return stage_.count("fence.begun", node); }
    std::uint64_t starts(std::uint32_t node) const { return stage_.count("guest.start", node); }
    bool guest_runs_on(std::uint32_t node);
    bool acting(std::uint32_t node);
    bool coordinates(std::uint32_t node);
    std::string store_state(std::uint32_t node);  // as its status says
    // times the store was made a single member
    std::size_t forcings();
    // the problems of that node's status as lines of the log
    void show_status(std::uint32_t node);
    // one of them contains the text, in what, why or the command to type
    bool says(std::uint32_t node, std::string_view text);
    std::string why_guest_waits(std::uint32_t node);

  private:
    Stage& stage_;
};

}  // namespace gemel::sim
