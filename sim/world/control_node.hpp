// ControlNode: gemel-clusterd of one host: the real ClusterNode with the real planner, and everything that
// carries out what it asks for, with the times and failures that the daemon's drivers have
// (docs/design/0006). What survives a process (the store's directory, the member nonce, the guest, the guard)
// is not in the process here either. A node's control plane learns of another's only through Network and
// StoreModel.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/cluster/node.hpp"
#include "sim/checkers/control.hpp"
#include "sim/world/control.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/guest_host.hpp"
#include "sim/world/live_move.hpp"
#include "sim/world/network.hpp"
#include "sim/world/store.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

// What lies outside one node and is nobody's own: cables to the other clusterd, fence devices, the operator.
class ClusterPort {
  public:
    virtual cluster::NodeConfig node_config(std::uint32_t node) = 0;
    virtual void deliver(std::uint32_t node, const cluster::PeerMessageIn& message) = 0;
    // `answer` is called once, at the latest when the device's time-out is over
    virtual void fence(std::uint32_t by, const cluster::Fence& order,
                       std::function<void(cluster::FenceOutcome, std::string)> answer) = 0;
    virtual void answered(std::uint32_t node, const cluster::ApiAnswer& answer) = 0;
    virtual void left(std::uint32_t node, const cluster::LeaveDone& done) = 0;
    virtual LiveMove& live_move() = 0;
    virtual void guest_began(std::uint32_t node) = 0;
    // what the store has decided about the volume, for checks
    virtual const VolumeRecord& decided_volume() const = 0;
    virtual ControlChecker& checker() = 0;
    // by what is committed and served, the guest's domain on that node may run on
    virtual bool rightful(std::uint32_t node) const = 0;
    // how long something takes that takes that long
    virtual Duration takes(Prng& random, Duration least, Duration most) = 0;

  protected:
    ~ClusterPort() = default;
};

class ControlNode {
  public:
    struct Parts {
        Tasks& tasks;
        Trace& trace;
        Counters& counters;
        Network& network;
        StoreModel& store;
        WorldPort& world;
        GuestHost& guests;
        Guest& guest;
        ClusterPort& cluster;
    };
    ControlNode(Parts parts, std::uint32_t node, Prng random);

    // -- life
    void boot();  // the host is up: the disk is as it was left
    void start();
    void die();
    void host_lost();
    void host_paused();
    void host_resumed();
    void blockd_started();
    void blockd_died();
    bool alive() const { return clusterd_ != nullptr; }
    void set_wall_clock(std::int64_t ms) { wall_ms_ = ms; }  // of events' times only
    const cluster::ClusterNode* clusterd() const { return clusterd_.get(); }
    // the member's nonce beside its data directory, for old images
    struct StoreDisk {
        bool begun = false;  // a store was begun or joined on this disk
        Uuid nonce;
        Uuid next_nonce;
    };
    StoreDisk& store_disk() { return disk_; }

    // -- inputs
    void post(cluster::Input input);
    void blockd_view();
    void blockd_session(bool up, const PeerIdentity& peer);
    void blockd_proposal(const replication::Propose& propose);
    void blockd_needs_record(std::uint64_t at_least_revision);
    void blockd_epoch_refused(std::uint64_t epoch);
    void lease_extended(std::uint64_t epoch, Instant until);
    void domains_changed();

  private:
    // Messages on one socket: in order, a little late.
    struct Pipe {
        Instant last{0};
    };
    struct Refusal {
        std::uint64_t epoch = 0;
        std::function<void()> done;
    };
    void judge(const char* promise, const std::string& breach) const;
    Instant local() const { return parts_.world.host(node_).clock.local(parts_.tasks.now()); }
    bool paused() const { return parts_.world.host(node_).paused; }
    // runs in this life of the process only
    void after(Duration delay, std::function<void()> work);
    void reply_later(Duration delay, cluster::Input input);
    void through(Pipe& pipe, std::function<void()> work);
    void to_blockd(std::function<void(BlockNode&)> work);
    void from_blockd(std::function<void()> work);
    void drain();
    void tick();
    void poll();
    void report_health();
    void report_domains();
    void count_states();

    // store
    void read_tables();
    void watch(std::uint64_t revision);
    void restart_watch();
    void keep_lease(std::uint64_t id);
    void renew_at_store();
    bool take_renewal(const std::vector<cluster::KeyValue>& values);
    std::string store_command(const cluster::StoreCommandKind& command);
    void begin_store_command(const cluster::StoreCommand& order);
    bool member_command(const cluster::StoreCommand& order);
    // blockd
    void attach();
    void send_record();
    void refuse_epoch(std::uint64_t epoch, std::function<void()> done);
    void set_aside(const cluster::BlockdSetAside& order);
    // guests
    void start_domain(const cluster::StartDomain& order, int tries);

    void execute(const cluster::Output& output);
    void run(const cluster::SubmitTxn& order);
    void run(const cluster::StoreRead& order);
    void run(const cluster::ReadTables& order);
    void run(const cluster::GrantLease& order);
    void run(const cluster::RevokeLease& order);
    void run(const cluster::StoreCommand& order);
    void run(const cluster::PeerSend& order);
    void run(const cluster::BlockdRecord& order);
    void run(const cluster::BlockdDetach& order);
    void run(const cluster::BlockdRenew& order);
    void run(const cluster::BlockdProposalDone& order);
    void run(const cluster::BlockdRefuseEpoch& order);
    void run(const cluster::BlockdPeerProvenDown& order);
    void run(const cluster::BlockdFormat& order);
    void run(const cluster::BlockdDelete& order);
    void run(const cluster::BlockdSetAside& order);
    void run(const cluster::BlockdRelease& order);
    void run(const cluster::BlockdCloseAll& order);
    void run(const cluster::Fence& order);
    void run(const cluster::ListDomains& order);
    void run(const cluster::StartDomain& order);
    void run(const cluster::ShutdownDomain& order);
    void run(const cluster::DestroyDomain& order);
    void run(const cluster::OpenGate& order);
    void run(const cluster::CloseGate& order);
    void run(const cluster::MigrateDomain& order);
    void run(const cluster::CancelMigration& order);
    void run(const cluster::GuardRegister& order);
    void run(const cluster::GuardRevoked& order);
    void run(const cluster::GuardForget& order);
    void run(const cluster::ApiAnswer& order);
    void run(const cluster::Log& order);
    void run(const cluster::LeaveDone& order);

    Parts parts_;
    std::uint32_t node_;
    std::string name_;
    Prng random_;
    StoreDisk disk_;
    std::int64_t wall_ms_ = 0;
    std::unique_ptr<cluster::ClusterNode> clusterd_;
    std::uint64_t life_ = 0;   // of the process
    std::uint64_t boots_ = 0;  // of the host, for what is not clusterd's
    std::deque<cluster::Input> inbox_;
    bool stepping_ = false;
    cluster::Outputs outputs_;
    std::uint64_t polls_ = 0;
    // store
    std::uint64_t watch_number_ = 0;
    bool have_snapshot_ = false;
    std::uint64_t lease_ = 0;
    std::vector<cluster::StoreMemberView> members_;
    bool commanding_ = false;
    std::deque<cluster::StoreCommand> commands_;
    // blockd
    bool blockd_told_ = false;
    bool attached_ = false;
    bool attaching_ = false;
    std::optional<CommittedVolume> record_;
    std::vector<Refusal> refusals_;
    std::optional<cluster::BlockdSession> session_;
    std::optional<replication::Propose> open_proposal_;
    Pipe to_blockd_;
    Pipe from_blockd_;
    bool view_due_ = false;
    std::string volume_key_;
    // as last decoded by blockd's renewals
    std::string renewed_volume_, renewed_lineage_;
    CommittedVolume renewed_;
    VolumeId volume_;
    // counted already
    cluster::ClusterNode::States counted_;
    bool stood_ = false;
    bool coordinated_ = false;
};

}  // namespace gemel::sim
