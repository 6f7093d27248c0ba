// ControlPlane: the real control plane in the world: a store model, a ControlNode and a GuestHost on each of
// the two hosts, the witness's store member, fence devices, and the operator with his commands. The truth
// that checkers compare with is what the store has decided: of the newest lineage the newest state that any
// member applied.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "sim/world/control.hpp"
#include "sim/world/control_node.hpp"
#include "sim/world/guest_host.hpp"
#include "sim/world/operator.hpp"
#include "sim/world/store.hpp"

namespace gemel::sim {

class ControlPlane final : public Control, public ClusterPort, public OperatorPort {
  public:
    struct Parts {
        Tasks& tasks;
        Trace& trace;
        Counters& counters;
        Network& network;
        Guest& guest;
        WorldPort& world;
    };
    struct Setup {
        ClusterId cluster;
        Voters voters = Voters::three;
        std::uint64_t size_bytes = 0;
        AckMode ack_mode = AckMode::writeback;
        TimingRecord timing;
        bool scripted = false;  // what takes seconds takes always the same, the operator does as he is told
    };
    ControlPlane(Parts parts, Prng random, const Setup& setup);

    // -- Control
    const CommittedVolume& committed() const override { return committed_; }
    bool owns(std::uint32_t node, std::uint64_t epoch) const override;
    bool settled() const override;
    bool written_off(std::uint32_t node) const override;
    std::string state_text() const override;
    void start() override;
    bool formed() const override { return formed_; }
    void blockd_started(std::uint32_t node) override { nodes_[node]->blockd_started(); }
    void blockd_died(std::uint32_t node) override { nodes_[node]->blockd_died(); }
    void host_booted(std::uint32_t node) override { nodes_[node]->boot(); }
    void host_lost(std::uint32_t node) override;
    void host_paused(std::uint32_t node) override { nodes_[node]->host_paused(); }
    void host_resumed(std::uint32_t node) override { nodes_[node]->host_resumed(); }
    void clusterd_started(std::uint32_t node) override { nodes_[node]->start(); }
    void clusterd_died(std::uint32_t node) override { nodes_[node]->die(); }
    void witness_changed() override;
    bool frozen(std::uint32_t node) const override { return hosts_[node]->frozen(); }
    void guest_ended() override {}
    bool guest_vanishes(std::uint32_t node) override;
    std::string served_twice(std::uint32_t node) const override;
    void ask_handover() override { operator_->ask_handover(); }
    bool ask_migration(bool drain) override;
    void ask_cancel() override { operator_->ask_cancel(); }
    bool replace_replica(std::uint32_t node) override;
    void replica_replaced(std::uint32_t, ReplicaId) override {}
    void vouch_for_off(std::uint32_t node, Instant until) override { operator_->vouch_for_off(node, until); }
    bool ask_leave(std::uint32_t node) override;
    void take_witness_image() override;
    bool restore_witness_image() override;
    void take_store_image(std::uint32_t node) override;
    bool restore_store_image(std::uint32_t node) override;
    bool knows_later(std::uint32_t member, std::uint32_t node) const;
    void set_late_commits(bool late) override { store_.set_late_commits(late); }
    void healing() override { operator_->look_after_everything(); }
    void set_trouble(bool lost_replies, bool slow_watches) override;

    // -- ControlPort: what engines ask
    void propose(std::uint32_t node, const replication::Propose& propose) override;
    void need_record(std::uint32_t node, std::uint64_t at_least_revision) override;
    void epoch_refused(std::uint32_t node, std::uint64_t epoch) override;
    void lease_extended(std::uint32_t node, std::uint64_t epoch, Instant local_until) override;
    void serve_front(std::uint32_t node, std::uint64_t epoch) override;
    void stop_front(std::uint32_t node, std::uint64_t epoch) override;
    void view_changed(std::uint32_t node) override { nodes_[node]->blockd_view(); }
    void peer_session(std::uint32_t node, bool up, const PeerIdentity& peer) override;
    void answered_nobody(std::uint32_t node, std::uint64_t epoch, const GuestRequest& request) override;

    // -- ClusterPort
    cluster::NodeConfig node_config(std::uint32_t node) override;
    void deliver(std::uint32_t node, const cluster::PeerMessageIn& message) override;
    void fence(std::uint32_t by, const cluster::Fence& order,
               std::function<void(cluster::FenceOutcome, std::string)> answer) override;
    void answered(std::uint32_t node, const cluster::ApiAnswer& answer) override;
    void left(std::uint32_t node, const cluster::LeaveDone& done) override;
    void guest_began(std::uint32_t node) override { parts_.world.guest_began(node); }
    LiveMove& live_move() override { return move_; }
    const VolumeRecord& decided_volume() const override { return committed_.record; }
    ControlChecker& checker() override { return checker_; }
    bool rightful(std::uint32_t node) const override;
    Duration takes(Prng& random, Duration least, Duration most) override;

    // -- OperatorPort
    const cluster::Tables& truth() const override { return truth_; }
    bool takes_orders(std::uint32_t node) const override;
    const cluster::ClusterNode* clusterd(std::uint32_t node) const override {
        return nodes_[node]->clusterd();
    }
    void order(std::uint32_t node, const cluster::ApiRequest& request) override;
    bool has_store(std::uint32_t node) const override { return nodes_[node]->store_disk().begun; }
    bool is_off(std::uint32_t node) const override;

    // -- for scripts
    StoreModel& store() { return store_; }
    ControlNode& node(std::uint32_t node) { return *nodes_[node]; }
    const GuestHost& guest_host(std::uint32_t node) const { return *hosts_[node]; }
    using Answered = std::function<void(const Result<OperationRecord>&)>;
    void ask(std::uint32_t node, cluster::ApiCommand command, Answered answered);

  private:
    void applied(std::uint32_t member, std::uint64_t revision, std::span<const cluster::KeyChange> changes);
    void follow_volume();
    void follow_handover(const VolumeRecord& before);
    void follow_nodes(std::span<const cluster::KeyChange> changes);
    void follow_word(const NodeRecord& record);
    void look();
    bool lied_about(std::uint32_t node) const;

    Parts parts_;
    Prng random_;
    Setup setup_;
    StoreModel store_;
    LiveMove move_;
    std::array<std::unique_ptr<GuestHost>, 2> hosts_;
    std::array<std::unique_ptr<ControlNode>, 2> nodes_;
    std::unique_ptr<Operator> operator_;
    cluster::Tables truth_;
    std::array<std::size_t, kNodes> depth_{};  // of each member's lineage
    std::size_t truth_depth_ = 0;
    ControlChecker checker_;
    Instant ran_since_ = Instant::never();
    std::map<cluster::Tag, Answered> asked_;
    cluster::Tag next_tag_ = cluster::Tag{1} << 32;  // none of the operator's
    struct StoreImage {
        StoreDirectory directory;
        ControlNode::StoreDisk disk;
    };
    std::array<std::optional<StoreImage>, 2> images_;
    std::optional<StoreDirectory> witness_image_;
    CommittedVolume committed_;
    std::uint32_t mask_ = 0;
    std::array<std::optional<Incarnation>, 2> lied_;  // a device said this life was off
    // when that epoch was first seen so: committed as revoking; refused durably by that node's blockd
    std::map<std::uint64_t, Instant> revoking_since_;
    Instant granted_at_{0};  // the newest epoch
    std::array<std::map<std::uint64_t, Instant>, 2> refused_since_;
    std::array<std::optional<Incarnation>, 2> word_counts_;
    bool formed_ = false;
};

}  // namespace gemel::sim
