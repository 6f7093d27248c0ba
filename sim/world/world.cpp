#include "sim/world/world.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/formats/format_replica.hpp"
#include "core/formats/layout.hpp"
#include "sim/checkers/convergence.hpp"
#include "sim/world/control_plane.hpp"
#include "sim/world/oracle.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kRequestsASeed = 2000;
constexpr Duration kLivenessBound = seconds(240);
constexpr Duration kFormingBound = seconds(60);
constexpr Duration kLastHang = seconds(6);
constexpr Duration kScriptedBoot = seconds(4);

std::uint64_t volume_bytes(Prng& random) {
    return (12 + random.below(28)) << 20;
}

}  // namespace

World::World(const SeedOptions& options, Counters& counters)
    : options_(options),
      counters_(counters),
      random_(options.seed),
      trace_(options.print_trace),
      tasks_(queue_),
      network_(tasks_, trace_, random_.fork()),
      link_(queue_, trace_, network_, random_.fork()),
      data_bytes_(options.script ? options.script->data_bytes : volume_bytes(random_)),
      mode_stable_(options.script ? options.script->mode_stable : random_.chance(1, 5)),
      voters_(options.voters.value_or(random_.chance(1, 3) ? Voters::two : Voters::three)),
      history_(data_bytes_) {
    cluster_id_ = ClusterId::from_random(random_.next(), random_.next());
    volume_id_ = VolumeId::from_random(random_.next(), random_.next());
    first_generation_ = Generation{GenerationId::from_random(random_.next(), random_.next()), {}, 1};
    for (ReplicaId& id : replicas_) id = ReplicaId::from_random(random_.next(), random_.next());
    Prng workload_random = random_.fork();
    workload_ = Workload::swarm(workload_random);
    guest_ = std::make_unique<Guest>(queue_, trace_, counters_, random_.fork(), history_, *this, workload_,
                                     data_bytes_, mode_stable_);
    VolumeRecord record;
    record.id = volume_id_;
    record.name = "disk";
    record.size_bytes = data_bytes_;
    record.ack_mode = mode_stable_ ? AckMode::stable : AckMode::writeback;
    record.generation = first_generation_;
    for (std::uint32_t node = 0; node < 2; ++node) {
        record.replicas.push_back(
            ReplicaRecord{kNodeNames[node], replicas_[node], "default", ReplicaState::up_to_date, true});
    }
    make_control(record);
    const std::uint64_t metadata_bytes = formats::Layout::for_size(data_bytes_).metadata_bytes;
    for (std::uint32_t node = 0; node < 2; ++node) {
        disks_.push_back(std::make_unique<Disk>(
            queue_, trace_, random_.fork(), payloads_, node, metadata_bytes, data_bytes_,
            [this](const std::string& promise, const std::string& what) { on_breach(promise, what); }));
        blocks_.push_back(
            std::make_unique<BlockNode>(BlockNode::Parts{queue_, trace_, counters_, payloads_, *disks_[node],
                                                         link_, hosts_[node].clock, *control_, *guest_, this},
                                        node, random_.fork()));
    }
    permission_ = std::make_unique<PermissionChecker>();
    equality_ = std::make_unique<EqualityChecker>(history_, data_bytes_);
    tracking_ = std::make_unique<TrackingChecker>(data_bytes_, *disks_[0], *disks_[1]);
    stable_before_ = std::make_unique<StableBeforeChecker>(*tracking_, replication::EngineConfig{}.lease);
    active_extents_ = static_cast<std::uint32_t>(random_.between(2, 8));
    if (options_.script) {
        active_extents_ = options_.script->active_extents;
        guest_->obey_script();
    }
    Prng plan_random = random_.fork();
    plan_ = FaultPlan::swarm(plan_random);
    if (!options_.kinds.empty()) plan_.kinds = options_.kinds;
    if (options_.only) plan_.kinds = {*options_.only};
    if (options_.faults) plan_.count = *options_.faults;
}

// Half of the seeds have bounds so short that an operator's word counts within a run.
TimingRecord World::timing() {
    TimingRecord timing;
    if (options_.script) return options_.script->timing;
    if (random_.chance(1, 2)) timing.fence_bound_ms = voters_ == Voters::two ? 23'000 : 12'000;
    return timing;
}

void World::make_control(const VolumeRecord& first) {
    if (options_.oracle) {
        control_ =
            std::make_unique<Oracle>(Oracle::Parts{tasks_, trace_, counters_, network_, *guest_, *this},
                                     random_.fork(), voters_, first);
        return;
    }
    for (ReplicaId& id : replicas_) id = {};  // whoever makes the volume chooses them
    auto plane = std::make_unique<ControlPlane>(
        ControlPlane::Parts{tasks_, trace_, counters_, network_, *guest_, *this}, random_.fork(),
        ControlPlane::Setup{cluster_id_, voters_, first.size_bytes, first.ack_mode, timing(),
                            options_.script.has_value()});
    plane_ = plane.get();
    control_ = std::move(plane);
    if (options_.script) boot_time_ = kScriptedBoot;
}

// ---- life of hosts
// -----------------------------------------------------------------------------------------------

void World::format(std::uint32_t node, bool blank, const ReplicaId& peer) {
    formats::FormatRequest request;
    request.cluster = cluster_id_;
    request.volume = volume_id_;
    request.replica = replicas_[node];
    request.size_bytes = data_bytes_;
    if (!blank) {
        request.generation = first_generation_;
        request.peer = peer;
    }
    Image image(formats::Layout::for_size(data_bytes_).metadata_bytes, data_bytes_);
    formats::format_replica(request, [&image](std::uint64_t offset, std::span<const std::byte> page) {
        image.metadata.write(offset, page);
    });
    disks_[node]->restore(image);
}

void World::power_on(std::uint32_t node) {
    Host& host = hosts_[node];
    if (host.powered) return;
    host.powered = true;
    host.booting = true;
    ++host.boots;
    host.incarnation =
        Incarnation{Uuid::from_random(random_.next(), host.boots), Uuid::from_random(random_.next(), node)};
    host.clock.power_on(queue_.now(), milliseconds(random_.between(1, 3000)), random_.between(-4000, 4000));
    had_process_[node] = false;
    network_.set_isolated(node, false);
    network_.set_bmc(node, true);
    trace_.note(queue_.now(), node, "host.power_on", host.boots);
    const bool fast = random_.chance(1, 4);
    const Duration takes = milliseconds(fast ? random_.between(20, 600) : random_.between(1500, 6000));
    tasks_.after(boot_time_.value_or(takes), [this, node, life = host.incarnation] {
        if (hosts_[node].powered && hosts_[node].incarnation == life) boot(node);
    });
}

void World::boot(std::uint32_t node) {
    hosts_[node].booting = false;
    clusterd_[node] = true;
    control_->host_booted(node);
    start_blockd(node);
    control_->clusterd_started(node);
}

void World::power_off(std::uint32_t node) {
    Host& host = hosts_[node];
    if (!host.powered) return;
    trace_.note(queue_.now(), node, "host.power_off");
    host.powered = false;
    host.booting = false;
    host.paused = false;
    host.powered_off_at = queue_.now();
    ++pauses_[node];
    clusterd_[node] = false;
    link_.pause(node, false);
    link_.host_vanished(node);
    network_.set_isolated(node, true);
    end_guest(node);
    disks_[node]->power_cut();
    end_blockd(node);
    history_.node_lost_volatile(node);
    control_->host_lost(node);
    check_tracking();
}

// The machine on that node is gone. Where it was just being moved away from, it may go on.
void World::end_guest(std::uint32_t node) {
    if (!guest_->alive() || guest_->node() != node || control_->guest_vanishes(node)) return;
    guest_->kill();
}

void World::start_blockd(std::uint32_t node) {
    if (!hosts_[node].powered || blockd_up_[node]) return;
    blockd_up_[node] = true;
    ++process_lives_[node];
    control_->blockd_started(node);
}

// Opens the node's replica in the blockd that runs there.
void World::attach(std::uint32_t node) {
    if (!blockd_up_[node] || blocks_[node]->alive()) return;
    replication::EngineConfig config;
    config.node = kNodeNames[node];
    config.cluster = cluster_id_;
    config.volume = volume_id_;
    config.replica = replicas_[node];
    config.incarnation = hosts_[node].incarnation;
    config.process = SessionId::from_random(random_.next(), process_lives_[node]);
    config.outlived_io_possible = had_process_[node];
    config.active_extents = active_extents_;
    // Two seeds of seven: these volumes have three to ten extents, and where all are named nothing can be
    // untracked.
    config.intent_group = options_.script || active_extents_ < 7 ? 1 : active_extents_ == 7 ? 2 : 4;
    config.random_seed = random_.next();
    had_process_[node] = true;
    blocks_[node]->start(config);
}

void World::detach(std::uint32_t node) {
    if (blocks_[node]->running() && blocks_[node]->view().role != replication::Role::primary)
        blocks_[node]->die();
}

// As the record says: with its first generation where it is in the ack set, else blank.
void World::make_replica(std::uint32_t node, const VolumeRecord& record) {
    volume_id_ = record.id;
    first_generation_ = record.generation;
    replicas_[node] = record.replicas[node].replica;
    blocks_[node]->die();
    disks_[node]->power_cut();
    format(node, !record.replicas[node].in_ack_set, record.replicas[1 - node].replica);
    had_process_[node] = false;
    for (std::uint32_t n = 0; n < 2; ++n) link_.allow(n);
}

void World::end_blockd(std::uint32_t node) {
    blocks_[node]->die();
    if (!blockd_up_[node]) return;
    blockd_up_[node] = false;
    control_->blockd_died(node);
}

void World::crash_blockd(std::uint32_t node, Duration away) {
    if (!blockd_up_[node] || hosts_[node].paused) return;
    end_blockd(node);
    tasks_.after(away, [this, node, life = hosts_[node].incarnation] {
        if (hosts_[node].powered && hosts_[node].incarnation == life) start_blockd(node);
    });
}

void World::crash_blockd(std::uint32_t node) {
    end_blockd(node);
}

void World::stop_clusterd(std::uint32_t node) {
    if (!clusterd_[node]) return;
    clusterd_[node] = false;
    control_->clusterd_died(node);
}

void World::start_clusterd(std::uint32_t node) {
    if (clusterd_[node] || !hosts_[node].up()) return;
    clusterd_[node] = true;
    control_->clusterd_started(node);
}

bool World::shows(std::uint32_t node, WriteNumber write) const {
    return equality_->holds(disks_[node]->current(), write).empty();
}

void World::crash_clusterd(std::uint32_t node) {
    if (!clusterd_[node]) return;
    clusterd_[node] = false;
    control_->clusterd_died(node);
    tasks_.after(milliseconds(random_.between(200, 12000)), [this, node, life = hosts_[node].incarnation] {
        if (!hosts_[node].powered || hosts_[node].incarnation != life) return;
        clusterd_[node] = true;
        control_->clusterd_started(node);
    });
}

void World::pause(std::uint32_t node, Duration length) {
    Host& host = hosts_[node];
    if (!host.powered || host.booting || host.paused) return;
    trace_.note(queue_.now(), node, "host.pause", static_cast<std::uint64_t>(length.milliseconds()));
    host.paused = true;
    host.paused_at = queue_.now();
    const std::uint64_t number = ++pauses_[node];
    if (guest_->alive() && guest_->node() == node) guest_->set_vcpus(false);
    blocks_[node]->pause(true);
    disks_[node]->pause(true);
    link_.pause(node, true);
    control_->host_paused(node);
    tasks_.after(length, [this, node, number] { resume(node, number); });
    // the hardware watchdog is fed by the guard, which does not run either
    const bool owner =
        control_->committed().record.owner && control_->committed().record.owner->node == kNodeNames[node];
    if (!owner) return;
    tasks_.after(seconds(15), [this, node, number] {
        if (!hosts_[node].paused || pauses_[node] != number) return;
        counters_.add("site.watchdog_reset");
        power_off(node);
        tasks_.after(milliseconds(100), [this, node] { power_on(node); });
    });
}

void World::resume(std::uint32_t node, std::uint64_t pause_number) {
    Host& host = hosts_[node];
    if (!host.paused || pauses_[node] != pause_number) return;
    trace_.note(queue_.now(), node, "host.resume");
    host.paused = false;
    if (guest_->alive() && guest_->node() == node && !control_->frozen(node)) guest_->set_vcpus(true);
    blocks_[node]->pause(false);
    disks_[node]->pause(false);
    link_.pause(node, false);
    control_->host_resumed(node);
}

// ---- checks on what the guest is told
// ----------------------------------------------------------------------------

void World::on_breach(const std::string& promise, const std::string& what) {
    throw Violation(promise, what);
}

void World::check_tracking() {
    const std::string untracked = tracking_->check();
    if (!untracked.empty()) on_breach("D3", untracked);
}

void World::sees_input(std::uint32_t node, Instant local, const replication::Input& input) {
    const Breach breach = stable_before_->input(node, local, input);
    if (!breach.promise.empty()) on_breach(breach.promise, breach.what);
}

// A media error is repaired with the bytes that were there: such a write makes no difference, torn or not.
bool World::repeats(std::uint32_t node, const replication::DiskWrite& write) {
    const std::span<const Stamp> stamps = payloads_.stamps(write.payload);
    const Image& image = disks_[node]->current();
    for (std::uint64_t i = 0; i < write.length / kSectorBytes; ++i) {
        if (image.data.get(write.offset / kSectorBytes + i) != stamps[i]) return false;
    }
    return true;
}

void World::sees_output(std::uint32_t node, Instant local, const replication::Output& output) {
    if (const auto* write = std::get_if<replication::DiskWrite>(&output); write && repeats(node, *write))
        return;
    const Breach breach = stable_before_->output(node, local, output);
    if (!breach.promise.empty()) on_breach(breach.promise, breach.what);
    const auto* propose = std::get_if<replication::Propose>(&output);
    if (propose != nullptr && propose->kind == replication::ProposalKind::peer_joined) check_joined();
}

// A replica enters the ack set with every earlier write stable (H31): whatever was flushed while it was away
// is on its disk before its UpToDate is proposed.
void World::check_joined() {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::string breach = equality_->keeps_flushed(disks_[node]->stable());
        if (breach.empty()) continue;
        on_breach("D1", fmt::format("a join is proposed, and on node{} {}", node + 1, breach));
    }
}

std::uint32_t World::on_acknowledged(std::uint32_t node, std::uint64_t epoch, const GuestRequest& request) {
    const std::uint32_t mask = control_->ack_mask();
    const Breach early = stable_before_->acknowledged(node, epoch, request.operation == GuestOperation::read);
    if (!early.promise.empty()) on_breach(early.promise, early.what);
    if (const std::string twice = control_->served_twice(node); !twice.empty()) on_breach("C1", twice);
    const std::string breach = permission_->acknowledged(node, epoch, control_->owns(node, epoch), mask);
    if (!breach.empty()) on_breach("D2", breach);
    return mask;
}

// An acknowledged write is on every replica of the ack set: except where its power went off since it began,
// which the owner cannot know yet.
void World::on_write_acknowledged(WriteNumber number) {
    const History::Write& write = history_.write(number);
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (!control_->in_ack_set(node)) continue;
        const bool excused = !hosts_[node].powered || hosts_[node].powered_off_at > write.begun;
        const Image& image = write.stable ? disks_[node]->stable() : disks_[node]->current();
        if (!write.stable && excused) continue;
        const std::string breach = equality_->holds(image, number);
        if (!breach.empty()) {
            on_breach("D1", fmt::format("write {} was acknowledged{}, but on node{} {}", number,
                                        write.stable ? " as stable" : "", node + 1, breach));
        }
    }
}

// D15: an error reaches the guest only when every copy that counts has had one, or may have forgotten what
// the guest was told (a node that rebooted while it held the only one).
void World::on_io_error(std::uint32_t node, const GuestRequest& request) {
    counters_.add("site.guest_io_error");
    for (std::uint32_t n = 0; n < 2; ++n) {
        const bool counts = control_->in_ack_set(n);
        const bool only = counts && !control_->in_ack_set(1 - n);
        if (!counts || disks_[n]->hurt() || (only && n != node && hosts_[n].boots > 1)) continue;
        on_breach("D15", fmt::format("node{} told the guest of an I/O error (operation {} at {}+{}), but "
                                     "node{} is in the ack set and nothing is wrong with its disk",
                                     node + 1, static_cast<int>(request.operation), request.offset,
                                     request.length, n + 1));
    }
}

void World::on_flushed(const std::vector<WriteNumber>& made_stable) {
    for (const WriteNumber number : made_stable) {
        for (std::uint32_t node = 0; node < 2; ++node) {
            if (!control_->in_ack_set(node)) continue;
            const std::string breach = equality_->holds(disks_[node]->stable(), number);
            if (!breach.empty()) {
                on_breach("D1", fmt::format("a flush was answered, but on node{} write {} is not stable: {}",
                                            node + 1, number, breach));
            }
        }
    }
}

// ---- phases
// ------------------------------------------------------------------------------------------------------

void World::begin_dark() {
    control_->start();
}

void World::begin() {
    begin_dark();
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (options_.oracle) format(node, false, replicas_[1 - node]);
        power_on(node);
    }
    if (!run_until([this] { return control_->formed() && guest_->running(); }, kFormingBound))
        on_breach("C12", "two healthy hosts did not form a cluster with a guest: " + state_text());
}

void World::run_for(Duration duration) {
    queue_.run_until(queue_.now() + duration);
}

bool World::run_until(const std::function<bool()>& condition, Duration bound) {
    const Instant end = queue_.now() + bound;
    for (;;) {
        queue_.run_until(queue_.now() + milliseconds(50));
        if (condition()) return true;
        if (queue_.now() >= end) return false;
    }
}

std::string_view World::missing() const {
    return ConvergenceChecker::missing(control_->committed().record, {blocks_[0]->view(), blocks_[1]->view()},
                                       guest_->running(), control_->settled());
}

std::string World::state_text() const {
    const CommittedVolume& committed = control_->committed();
    std::string text = fmt::format(
        "record revision {} generation {} owner {} epoch {}; guest {} on node{}; ", committed.revision,
        committed.record.generation.counter, committed.record.owner ? committed.record.owner->node : "none",
        committed.record.epoch, guest_->running() ? "runs" : "does not run", guest_->node() + 1);
    for (std::uint32_t node = 0; node < 2; ++node) {
        const replication::View view = blocks_[node]->view();
        const ReplicaRecord& replica = committed.record.replicas[node];
        text += fmt::format(
            "node{}: committed state {} {}, engine {} role {} connection {} sync {} frozen {} dirty {} "
            "in flight {} epoch {} revision {} '{}'; ",
            node + 1, static_cast<int>(replica.state), replica.in_ack_set ? "in" : "out",
            blocks_[node]->running() ? "runs" : "is not running", static_cast<int>(view.role),
            static_cast<int>(view.connection), static_cast<int>(view.sync), static_cast<int>(view.frozen),
            view.dirty_bytes, view.requests_in_flight, view.epoch, view.record_revision, view.problem);
    }
    return text + control_->state_text();
}

void World::set_witness(bool up) {
    witness_up_ = up;
    control_->witness_changed();
}

void World::heal() {
    healing_ = true;
    network_.heal();
    set_witness(true);
    poisoned_ = false;
    control_->set_late_commits(false);
    control_->healing();
    control_->set_trouble(false, false);
    for (std::uint32_t node = 0; node < 2; ++node) {
        fence_moods_[node] = FenceMood::works;
        disks_[node]->faults() = DiskFaults{};
        if (hosts_[node].paused) resume(node, pauses_[node]);
        if (!hosts_[node].powered) power_on(node);
        link_.set_protocol(node, 1);
        link_.allow(node);
    }
}

// The operator's part: a failed or refused replica gets a new, blank one in its place.
void World::repair_failed_replicas() {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const ReplicaRecord& replica = control_->committed().record.replicas[node];
        if (blockd_up_[node] && (!blocks_[node]->running() || !blocks_[node]->view().attached)) {
            // Restarted: it met a disk that did not answer. Where that helped nothing, and a stray write had
            // destroyed one superblock, a second fault the other: "recreate the replica", it says (seed
            // 54218).
            const bool lost = restarted_in_vain_[node]++ > 0 && disks_[node]->strays() > 0;
            if (lost && !replica.in_ack_set) {
                replace_replica(node);
            } else {
                crash_blockd(node, milliseconds(100));
            }
            continue;
        }
        restarted_in_vain_[node] = 0;
        if (replica.in_ack_set || !blocks_[node]->running()) continue;
        const replication::View view = blocks_[node]->view();
        const bool broken = replica.state == ReplicaState::failed ||
                            view.local_state == ReplicaState::failed ||
                            view.connection == replication::ConnectionState::standalone;
        if (!broken) continue;
        replace_replica(node);
    }
}

void World::replace_replica(std::uint32_t node) {
    counters_.add("site.replica_replaced");
    if (!control_->replace_replica(node)) return;
    blocks_[node]->die();
    replicas_[node] = ReplicaId::from_random(random_.next(), random_.next());
    disks_[node]->power_cut();
    format(node, true, {});
    control_->replica_replaced(node, replicas_[node]);
    had_process_[node] = false;
    for (std::uint32_t n = 0; n < 2; ++n) link_.allow(n);
    end_blockd(node);
    tasks_.after(milliseconds(500), [this, node] { start_blockd(node); });
}

void World::cut_nodes_apart(bool cut) {
    for (const Cable cable : {Cable::control, Cable::link1, Cable::link2})
        network_.cut_both_ways(cable, 0, 1, cut);
}

void World::force_alone(std::uint32_t node) {
    CommittedVolume forced = control_->committed();
    VolumeRecord& record = forced.record;
    forced.lineage = LineageId::from_random(random_.next(), random_.next());
    ++forced.revision;
    record.replicas[1 - node].in_ack_set = false;
    record.replicas[1 - node].state = ReplicaState::outdated;
    record.ancestors.insert(record.ancestors.begin(), record.generation.id);
    record.generation = Generation{GenerationId::from_random(random_.next(), random_.next()),
                                   record.generation.id, record.generation.counter + 1};
    record.epoch += 1 + node;
    record.owner = OwnerRecord{};
    record.owner->node = kNodeNames[node];
    record.owner->incarnation = hosts_[node].incarnation;
    record.owner->epoch = record.epoch;
    record.owner->secret = "forced";
    record.owner->purpose = "vm:guest";
    blocks_[node]->input(replication::CommittedRecordIn{forced});
    blocks_[node]->input(replication::StoreRenewal{hosts_[node].clock.local(queue_.now()), forced});
}

void World::write_alone(std::uint32_t node, std::uint64_t block, Stamp stamp) {
    GuestRequest request;
    request.tag = ~std::uint64_t{0} - stamp;  // no guest's
    request.operation = GuestOperation::write;
    request.offset = block * kBlockBytes;
    request.length = kBlockBytes;
    request.stamp = stamp;
    const std::uint64_t served = blocks_[node]->served_epoch();
    blocks_[node]->front_submit(served != 0 ? served : control_->committed().record.epoch, request);
}

// The only replica that was current has a broken disk or lost its metadata to one: no program can go on, an
// operator must decide what to lose (promise C12 excepts it). Only what this world broke itself counts.
bool World::beyond_repair() const {
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (!control_->in_ack_set(node) || control_->in_ack_set(1 - node)) continue;
        if (disks_[node]->wounds() > 0 && blocks_[node]->view().role != replication::Role::primary)
            return true;
        if (disks_[node]->wounds() > 0 && blocks_[node]->view().local_state == ReplicaState::failed)
            return true;
    }
    return both_copies_failed();
}

// Both in the ack set, and each knows that its disk failed before the other could leave it.
bool World::both_copies_failed() const {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const ReplicaState state = blocks_[node]->view().local_state;
        const bool failed = state == ReplicaState::failed || state == ReplicaState::inconsistent;
        if (!control_->in_ack_set(node) || disks_[node]->wounds() == 0 || !failed) return false;
    }
    return true;
}

// Nobody will use that disk again by himself, and nothing else counts.
bool World::only_copy_failed() const {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const bool alone = control_->in_ack_set(node) && !control_->in_ack_set(1 - node);
        if (alone && blocks_[node]->running() && blocks_[node]->view().local_state == ReplicaState::failed)
            return true;
    }
    return false;
}

void World::live() {
    heal();
    const auto enough = [this] { return guest_->completions() >= kRequestsASeed && converged(); };
    bool done = false;
    for (int round = 0; round < 24 && !done; ++round) {
        done = run_until(enough, kLivenessBound / 24);
        // what hangs in a disk since before the healing may still end badly
        if (done) run_for(kLastHang);
        done = done && converged();
        if (!done && round >= 6 && beyond_repair() && only_copy_failed()) break;
        if (!done && round >= 2) repair_failed_replicas();
        // fenced by what was decided before the healing: somebody presses the button
        for (std::uint32_t node = 0; node < 2; ++node) {
            power_on(node);
            if (done || round < 2 || !control_->written_off(node)) continue;
            counters_.add("site.written_off_node_rebooted");
            power_off(node);
        }
    }
    if (!done && beyond_repair()) {
        counters_.add("site.beyond_repair");
        return;
    }
    if (!done) {
        on_breach("C12",
                  fmt::format("no convergence after everything was healed, {}: {}", missing(), state_text()));
    }
    counters_.add("site.converged");
    finish_checks();
}

// Quiet: everything that was ever written is read back by the guest, then the disks are compared.
void World::finish_checks() {
    guest_->stop_asking(true);
    guest_->begin_sweep();
    if (!run_until([this] { return !guest_->sweeping() && guest_->idle() && converged(); }, seconds(120))) {
        on_breach("C12", fmt::format("the last reads were not answered, {}: {}", missing(), state_text()));
    }
    guest_->stop_asking(true);
    const auto left_over = [this] {
        return ConvergenceChecker::left_over({blocks_[0]->view(), blocks_[1]->view()});
    };
    if (!run_until([&] { return guest_->idle() && left_over().empty(); }, seconds(10)))
        on_breach("C12", fmt::format("{}: {}", left_over(), state_text()));
    const std::string difference = equality_->same(disks_[0]->current(), disks_[1]->current());
    if (!difference.empty()) on_breach("D16", "both replicas are UpToDate and quiet, but " + difference);
    for (std::uint32_t node = 0; node < 2; ++node) {
        const std::string breach = equality_->shows_history(disks_[node]->current(), queue_.now());
        if (!breach.empty()) on_breach("D1", fmt::format("at the end node{}: {}", node + 1, breach));
    }
    check_tracking();
}

SeedResult World::run() {
    SeedResult result;
    try {
        begin();
        // An image of the beginning can be told from the newest one two generations later, and most seeds get
        // there.
        if (std::ranges::find(plan_.kinds, Fault::old_image) != plan_.kinds.end()) {
            for (std::uint32_t node = 0; node < 2; ++node) take_image(node);
        }
        schedule_faults();
        while (faults_injected_ < plan_.count && !queue_.empty()) queue_.run_one();
        run_for(milliseconds(random_.between(0, 6000)));
        live();
    } catch (const Violation& violation) {
        result.ok = false;
        result.promise = violation.promise();
        result.what = violation.what();
        result.last_events = trace_.last(60);
    }
    result.virtual_seconds = Duration{queue_.now().nanoseconds_since_boot}.seconds();
    result.requests = guest_->completions();
    result.faults = faults_injected_;
    result.events = queue_.executed();
    result.hash = trace_.hash();
    counters_.add("total.requests", result.requests);
    counters_.add("total.faults", result.faults);
    counters_.add("total.guest_errors", guest_->errors());
    return result;
}

}  // namespace gemel::sim
