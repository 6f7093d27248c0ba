// World: one seed. Two hosts with a volume between them, a guest, a control plane, everything that can fail,
// and the checkers. A run has a safety phase (faults, nothing may be violated), then a liveness phase (all is
// healed; within a bound both replicas are UpToDate and equal and the guest goes on). Single-threaded; a
// function of its options.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/formats/records.hpp"
#include "sim/checkers/equality.hpp"
#include "sim/checkers/history.hpp"
#include "sim/checkers/permission.hpp"
#include "sim/checkers/stable_before.hpp"
#include "sim/checkers/tracking.hpp"
#include "sim/guests/guest.hpp"
#include "sim/world/block_node.hpp"
#include "sim/world/control.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/disk.hpp"
#include "sim/world/faults.hpp"
#include "sim/world/host.hpp"
#include "sim/world/network.hpp"
#include "sim/world/peer_link.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

class ControlPlane;

struct SeedOptions {
    std::uint64_t seed = 1;
    bool print_trace = false;
    std::optional<Fault> only;  // this kind alone: to look closely
    std::vector<Fault> kinds;   // these kinds alone; empty: as the seed wants
    std::optional<std::uint32_t> faults;
    bool oracle = false;  // rules with knowledge no real one has, instead of the real control plane
    std::optional<Voters> voters;
    // -- for scripts: a quiet guest that asks only what it is told to, and a volume as described
    struct Script {
        std::uint64_t data_bytes = 16U << 20;
        std::uint32_t active_extents = 4;
        bool mode_stable = false;
        TimingRecord timing = {};
    };
    std::optional<Script> script;
};

struct SeedResult {
    bool ok = true;
    std::string promise;
    std::string what;
    double virtual_seconds = 0;
    std::uint64_t requests = 0;
    std::uint64_t faults = 0;
    std::uint64_t events = 0;
    std::uint64_t hash = 0;
    std::vector<std::string> last_events;
};

class World final : public WorldPort, public GuestObserver, public EngineWatch {
  public:
    World(const SeedOptions& options, Counters& counters);

    SeedResult run();

    // -- for scripted scenarios
    void begin();
    void begin_dark();  // no host has power yet
    void run_for(Duration duration);
    bool run_until(const std::function<bool()>& condition, Duration bound);
    bool run_one() { return queue_.run_one(); }
    void inject(Fault fault, std::uint32_t node);
    void heal();
    bool converged() const { return missing().empty(); }
    std::string_view missing() const;  // until all is whole again; empty: nothing
    void finish_checks();
    void crash_blockd(std::uint32_t node);  // until start_blockd()
    void start_blockd(std::uint32_t node);
    void stop_clusterd(std::uint32_t node);
    void start_clusterd(std::uint32_t node);
    void pause(std::uint32_t node, Duration length);
    void restore(std::uint32_t node, const Image& image) { disks_[node]->restore(image); }
    void check_tracking();
    std::string state_text() const;
    // true when node's disk shows that write, or one that was not before it, in all its sectors
    bool shows(std::uint32_t node, WriteNumber write) const;
    Instant now() const { return queue_.now(); }
    Trace& trace() { return trace_; }
    Network& network() { return network_; }
    PeerLink& link() { return link_; }
    Guest& guest() { return *guest_; }
    const History& history() const { return history_; }
    Disk& disk(std::uint32_t node) { return *disks_[node]; }
    const CommittedVolume& committed() const { return control_->committed(); }
    const EqualityChecker& equality() const { return *equality_; }
    Control& control() { return *control_; }
    void cut_nodes_apart(bool cut);            // all cables between the two nodes
    void replace_replica(std::uint32_t node);  // the operator's part: a new, blank one in its place
    // What no rule allows: an operator forces this node with a record of its own making, and one write
    // reaches its engine past the guest (promise D8). Needs the oracle as control plane.
    void force_alone(std::uint32_t node);
    void write_alone(std::uint32_t node, std::uint64_t block, Stamp stamp);
    void set_fence(std::uint32_t node, FenceMood mood) { fence_moods_[node] = mood; }
    void set_witness(bool up);
    void set_poisoned(bool poisoned) { poisoned_ = poisoned; }  // the guest ends every host it starts on
    void set_boot_time(Duration takes) { boot_time_ = takes; }
    // null with the oracle
    ControlPlane* plane() { return plane_; }
    // WorldPort, of use to scripts as well
    Host& host(std::uint32_t node) override { return hosts_[node]; }
    BlockNode& block(std::uint32_t node) override { return *blocks_[node]; }
    void power_off(std::uint32_t node) override;
    void power_on(std::uint32_t node) override;

  private:
    // WorldPort
    bool clusterd_alive(std::uint32_t node) const override { return clusterd_[node]; }
    bool witness_up() const override { return witness_up_; }
    FenceMood fence_mood(std::uint32_t node) const override { return fence_moods_[node]; }
    // what only that replica still has in its cache is no longer asked for
    void left_ack_set(std::uint32_t node) override { history_.node_lost_volatile(node); }
    bool forgot(std::uint32_t node, Instant since) const override { return history_.forgot(node, since); }
    ReplicaId replica_id(std::uint32_t node) const override { return replicas_[node]; }
    bool blockd_up(std::uint32_t node) const override { return blockd_up_[node]; }
    std::uint64_t blockd_life(std::uint32_t node) const override { return process_lives_[node]; }
    void attach(std::uint32_t node) override;
    void detach(std::uint32_t node) override;
    void make_replica(std::uint32_t node, const VolumeRecord& record) override;
    // GuestObserver
    std::uint32_t on_acknowledged(std::uint32_t node, std::uint64_t epoch,
                                  const GuestRequest& request) override;
    void on_write_acknowledged(WriteNumber write) override;
    void on_flushed(const std::vector<WriteNumber>& made_stable) override;
    void on_io_error(std::uint32_t node, const GuestRequest& request) override;
    void on_breach(const std::string& promise, const std::string& what) override;
    // EngineWatch
    void engine_starts(std::uint32_t node) override { stable_before_->engine_starts(node); }
    void sees_input(std::uint32_t node, Instant local, const replication::Input& input) override;
    void sees_output(std::uint32_t node, Instant local, const replication::Output& output) override;

    void check_joined();
    bool repeats(std::uint32_t node, const replication::DiskWrite& write);
    void format(std::uint32_t node, bool blank, const ReplicaId& peer);
    void boot(std::uint32_t node);
    void crash_blockd(std::uint32_t node, Duration away);
    void end_blockd(std::uint32_t node);
    void end_guest(std::uint32_t node);
    TimingRecord timing();
    void make_control(const VolumeRecord& first);
    void crash_clusterd(std::uint32_t node);
    void resume(std::uint32_t node, std::uint64_t pause_number);
    void schedule_faults();
    bool inject_host_fault(Fault fault, std::uint32_t node);
    bool inject_network_fault(Fault fault, std::uint32_t node);
    bool inject_disk_fault(Fault fault, std::uint32_t node);
    bool inject_control_fault(Fault fault, std::uint32_t node);
    bool inject_cluster_fault(Fault fault, std::uint32_t node);
    void cut_between(bool with_management, bool cut);
    void part_for_long();
    void guest_began(std::uint32_t node) override;
    void committed_anew() override;
    void move_stepped(std::uint32_t step) override;
    bool break_the_move(std::uint32_t node);
    void flap(std::uint32_t times);
    void restore_old_image(std::uint32_t node);
    void repair_failed_replicas();
    void take_image(std::uint32_t node);
    void live();
    bool beyond_repair() const;
    bool both_copies_failed() const;
    bool only_copy_failed() const;
    Duration outage();
    std::uint32_t owner_or_random();

    SeedOptions options_;
    Counters& counters_;
    Prng random_;
    EventQueue queue_;
    Trace trace_;
    Tasks tasks_;
    Network network_;
    PeerLink link_;
    PayloadPool payloads_;
    std::uint64_t data_bytes_;
    bool mode_stable_;
    Voters voters_;
    std::array<ReplicaId, 2> replicas_;
    ClusterId cluster_id_;
    VolumeId volume_id_;
    Generation first_generation_;
    History history_;
    std::array<Host, 2> hosts_;
    std::vector<std::unique_ptr<Disk>> disks_;
    std::unique_ptr<Guest> guest_;
    std::unique_ptr<Control> control_;
    ControlPlane* plane_ = nullptr;
    std::vector<std::unique_ptr<BlockNode>> blocks_;
    std::unique_ptr<PermissionChecker> permission_;
    std::unique_ptr<EqualityChecker> equality_;
    std::unique_ptr<TrackingChecker> tracking_;
    std::unique_ptr<StableBeforeChecker> stable_before_;
    std::array<bool, 2> clusterd_{};
    std::array<bool, 2> blockd_up_{};
    std::array<FenceMood, 2> fence_moods_{};
    std::array<std::uint64_t, 2> pauses_{};
    std::array<std::uint64_t, 2> process_lives_{};
    std::array<std::uint32_t, 2> restarted_in_vain_{};  // by the operator, while everything heals
    std::array<bool, 2> had_process_{};                 // in this boot
    struct OldImage {
        Image image;
        std::uint64_t generation = 0;
        ReplicaId replica;
    };
    std::array<std::optional<OldImage>, 2> old_images_;
    bool witness_up_ = true;
    bool healing_ = false;
    bool poisoned_ = false;
    std::optional<Duration> boot_time_;  // always the same in a script
    bool cut_at_commit_ = false;
    std::optional<std::uint32_t> break_at_;  // a step of the next move at which something fails
    Instant quiet_until_;                    // no other fault before
    std::uint32_t active_extents_ = 4;
    std::uint64_t faults_injected_ = 0;
    FaultPlan plan_;
    Workload workload_;
};

}  // namespace gemel::sim
