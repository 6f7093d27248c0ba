#include "sim/scenarios/stage.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kSeedsTried = 64;

// what a line of the log calls an event of the trace; an event without a word is left out
struct Word {
    std::string_view event, word, text;
};
constexpr auto kWords = std::to_array<Word>({
    {"notice.role_changed", "role", ""},
    {"notice.connection_changed", "connection", ""},
    {"notice.sync_changed", "resync", ""},
    {"notice.replica_state_changed", "disk", ""},
    {"notice.frozen", "frozen", ""},
    {"notice.thawed", "goes on", " "},
    {"notice.verdict", "verdict", ""},
    {"notice.resync_finished", "resync", ""},
    {"notice.split_brain", "split brain", ""},
    {"notice.refused", "refused", ""},
    {"notice.disk_error", "disk", ""},
    {"notice.lease_lapsed", "lease", ""},
    {"notice.lease_resumed", "lease", ""},
    {"notice.metadata_unknown", "metadata", ""},
    {"notice.attached", "attached", ""},
    {"engine.drops_peer", "session", ""},
    {"engine.sends_away", "session", ""},
    {"store.commit", "commit", ""},
    {"host.power_off", "power", "off"},
    {"host.power_on", "power", "on"},
    {"host.pause", "host", "paused"},
    {"host.resume", "host", "goes on after a pause"},
    {"guest.start", "guest", "starts"},
    {"guest.killed", "guest", "killed"},
    {"guest.paused", "guest", "vCPUs stopped"},
    {"guest.resumed", "guest", "vCPUs go on"},
    {"fence.begun", "fence", "begins"},
    {"fence.verified", "fence", "verified off"},
    {"fence.failed", "fence", "failed"},
    {"blockd.start", "blockd", "starts"},
    {"blockd.die", "blockd", "ends"},
});

// ... and in a story of the control plane
constexpr auto kClusterWords = std::to_array<Word>({
    {"notice.frozen", "frozen", ""},
    {"notice.thawed", "goes on", " "},
    {"notice.split_brain", "split brain", ""},
    {"notice.refused", "refused", ""},
    {"notice.resync_finished", "resync", ""},
    {"store.commit", "commit", ""},
    {"host.power_off", "power", "off"},
    {"host.power_on", "power", "on"},
    {"host.resume", "host", "goes on after a pause"},
    {"guest.start", "guest", "starts"},
    {"guest.killed", "guest", "ends"},
    {"guest.paused", "guest", "vCPUs stopped"},
    {"guest.resumed", "guest", "vCPUs go on"},
    {"guard.kill", "guard", ""},
    {"fence.begun", "fence", "begins"},
    {"fence.verified", "fence", "verified off"},
    {"fence.failed", "fence", "failed"},
    {"clusterd", "clusterd", ""},
});
// what clusterd says of its own way, and what another line says as well
constexpr auto kChatter = std::to_array<std::string_view>({
    "boot: asking every node",
    "boot: registering",
    "boot: looking",
    "boot: starting",
    "boot: acting",
    "silent on all paths;",
    "the node answers",
    "a new life of the node",
    "is being fenced by",
    "two voters: fencing",
    "two voters: starting the forced",
    "verified off",
    ": the device of node",
    "no longer the coordinator",
    "its term is over",
    "store: quorate",
    "the store is quorate",
    "answers again",
    "placed here; looking",
    "starting its domain",
    "its domain runs",
    "runs on node",
    "the peer left the ack",
    "the peer's replica is",
    "this node does not own the volume",
    "closing its front ends",
    "giving its leases",
    "its domain is gone",
    "two voters: this node is the only",
    "two voters: the copy is forced",
    "a node of the cluster",
    "two voters: not one of",
});

std::string blocks_text(const GuestRequest& request) {
    const std::uint64_t first = request.offset / kBlockBytes;
    const std::uint64_t count = request.length / kBlockBytes;
    return count == 1 ? fmt::format("block {}", first)
                      : fmt::format("blocks {} to {}", first, first + count - 1);
}

std::string request_text(const GuestRequest& request, WriteNumber write) {
    switch (request.operation) {
        case GuestOperation::read: return "read of " + blocks_text(request);
        case GuestOperation::write:
            return fmt::format("write {} of {}{}", write, blocks_text(request),
                               request.fua ? " with FUA" : "");
        case GuestOperation::flush: return "flush";
        case GuestOperation::discard: return fmt::format("discard {} of {}", write, blocks_text(request));
        case GuestOperation::write_zeroes:
            return fmt::format("zeroing {} of {}", write, blocks_text(request));
    }
    return "request";
}

}  // namespace

void Stage::begin(const StageOptions& stage_options) {
    // which node is granted the volume first is the control plane's choice: take a world where it is node1
    for (std::uint64_t seed = 1; seed <= kSeedsTried; ++seed) {
        SeedOptions options;
        options.seed = seed;
        options.script = stage_options.volume;
        options.voters = stage_options.voters;
        options.oracle = !stage_options.real_control;
        world_ = std::make_unique<World>(options, counters_);
        if (!stage_options.formed) return world_->begin_dark();
        world_->begin();
        const bool up = world_->run_until([this] { return world_->converged(); }, seconds(60));
        if (up && owner() == 0) return;
        world_.reset();
    }
    throw Violation("scenario", "the cluster does not come up with node1 as the owner");
}

Stage::Stage(const StageOptions& stage_options) : cluster_(stage_options.real_control) {
    begin(stage_options);
    began_ = world_->now();
    world_->guest().on_completion(
        [this](const GuestRequest& request, WriteNumber write, bool ok, std::span<const Stamp> read) {
            completed(request, write, ok, read);
        });
    world_->trace().listen([this](Instant, std::uint32_t node, std::string_view name, std::uint64_t a,
                                  std::string_view text) { hear(node, name, a, text); });
    quiet_ = false;
    line(kWorld, "begin",
         stage_options.formed ? "node1 owns the volume, both replicas are UpToDate"
                              : "two blank hosts, without power");
}

void Stage::line(std::uint32_t node, std::string_view what, std::string_view text) {
    const double at = std::floor((world_->now() - began_).seconds() * 10) / 10;
    const std::string who = node == kWorld ? "" : fmt::format("node{}", node + 1);
    log_.push_back(fmt::format("{:>7.1f}  {:<6} {:<11} {}", at, who, what, text));
}

void Stage::hear(std::uint32_t node, std::string_view name, std::uint64_t a, std::string_view text) {
    if (quiet_) return;
    if (cluster_) return hear_cluster(node, name, a, text);
    const auto found = std::ranges::find(kWords, name, &Word::event);
    if (found == kWords.end()) return;
    const std::string_view shown = found->text.empty() ? text : found->text == " " ? "" : found->text;
    line(node, found->word, shown);
}

// What a human would follow: decisions and what came of them; how an engine gets there has its own scenarios.
void Stage::hear_cluster(std::uint32_t node, std::string_view name, std::uint64_t a, std::string_view text) {
    const auto found = std::ranges::find(kClusterWords, name, &Word::event);
    if (found == kClusterWords.end()) return;
    const bool fencing = name.starts_with("fence.");
    ++counted_[{std::string(name), fencing ? static_cast<std::uint32_t>(a - 1) : node}];
    if (name == "clusterd" && std::ranges::any_of(kChatter, [text](std::string_view part) {
            return text.find(part) != std::string_view::npos;
        }))
        return;
    if (name == "store.commit") text = text.substr(std::min(text.find("generation"), text.size()));
    std::string shown(found->text.empty() ? text : found->text == " " ? "" : found->text);
    if (fencing) shown = fmt::format("node{} {}", a, shown);
    if (shown == "metadata not stable yet" || shown.starts_with("0 MiB compared")) return;
    if (fencing && beyond_counting(name, static_cast<std::uint32_t>(a - 1), shown)) return;
    line(node, found->word, shown);
}

// A device that goes on failing has said it all after two attempts.
bool Stage::beyond_counting(std::string_view name, std::uint32_t victim, std::string& shown) {
    constexpr std::uint32_t kTold = 2;
    std::uint32_t& failed = failed_in_turn_[victim];
    if (name == "fence.verified") failed = 0;
    if (failed >= kTold && name == "fence.begun") return true;
    if (name != "fence.failed") return false;
    if (++failed == kTold) shown += ", and so on";
    return failed > kTold;
}

std::uint64_t Stage::count(std::string_view event, std::uint32_t node) const {
    const auto found = counted_.find({std::string(event), node});
    return found == counted_.end() ? 0 : found->second;
}

void Stage::say(const std::string& text) {
    log_.push_back("# " + text);
}

void Stage::check(const std::string& what, bool holds) {
    line(kWorld, holds ? "check" : "FAILED", what);
    if (!holds) throw Violation("scenario", what + "; " + world_->state_text());
}

std::size_t Stage::told(std::string_view text) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        log_, [&](const std::string& one) { return one.find(text) != std::string::npos; }));
}

// ---- the guest

Stage::Handle Stage::ask(GuestOperation operation, std::uint64_t block, std::uint32_t blocks, bool fua) {
    Guest& guest = world_->guest();
    const WriteNumber next = static_cast<WriteNumber>(world_->history().writes() + 1);
    GuestRequest shown;
    shown.operation = operation;
    shown.offset = block * kBlockBytes;
    shown.length = blocks * kBlockBytes;
    shown.fua = fua;
    line(guest.node(), "guest", request_text(shown, next) + " begins");
    const Handle handle = guest.ask(operation, block * kBlockBytes, blocks * kBlockBytes, fua);
    // a request may be answered before ask() returns
    Asked& asked = asked_[handle];
    if (!asked.done) asked.request = shown;
    if (asked.write == 0 && operation != GuestOperation::read && operation != GuestOperation::flush)
        asked.write = next;
    return handle;
}

void Stage::completed(const GuestRequest& request, WriteNumber write, bool ok, std::span<const Stamp> read) {
    Asked& asked = asked_[request.tag];
    const bool mine = !world_->guest().sweeping() && !quiet_;
    asked = Asked{request, write, true, ok, {read.begin(), read.end()}};
    if (!mine) return;
    std::string text = request_text(request, write);
    text += ok ? (request.operation == GuestOperation::read ? " answered" : " acknowledged") : " failed";
    if (ok && !read.empty()) text += read[0] == kZeroes ? ": zeroes" : fmt::format(": write {}", read[0]);
    line(world_->guest().node(), "guest", text);
}

Stage::Handle Stage::write(std::uint64_t block, std::uint32_t blocks, bool fua) {
    return ask(GuestOperation::write, block, blocks, fua);
}

Stage::Handle Stage::read(std::uint64_t block, std::uint32_t blocks) {
    return ask(GuestOperation::read, block, blocks, false);
}

Stage::Handle Stage::flush() {
    return ask(GuestOperation::flush, 0, 0, false);
}

Stage::Handle Stage::discard(std::uint64_t block, std::uint32_t blocks) {
    return ask(GuestOperation::discard, block, blocks, false);
}

Stage::Handle Stage::zero(std::uint64_t block, std::uint32_t blocks) {
    return ask(GuestOperation::write_zeroes, block, blocks, false);
}

void Stage::finish(Handle handle) {
    until(request_text(asked_.at(handle).request, asked_.at(handle).write) + " is answered",
          [this, handle] { return done(handle); });
    if (!asked_.at(handle).ok) throw Violation("scenario", "a request failed that had to succeed");
}

void Stage::finish(const std::vector<Handle>& handles) {
    for (const Handle handle : handles) finish(handle);
}

Stage::Handle Stage::written(std::uint64_t block, std::uint32_t blocks) {
    const Handle handle = write(block, blocks);
    finish(handle);
    return handle;
}

bool Stage::shows(std::uint32_t node, Handle handle) const {
    return world_->equality().holds(world_->disk(node).current(), asked_.at(handle).write).empty();
}

bool Stage::shows(std::uint32_t node, const std::vector<Handle>& handles) const {
    return std::ranges::all_of(handles, [&](Handle handle) { return shows(node, handle); });
}

bool Stage::stable_on(std::uint32_t node, Handle handle) const {
    return world_->equality().holds(world_->disk(node).stable(), asked_.at(handle).write).empty();
}

bool Stage::read_shows(Handle read, Handle write) const {
    const Asked& asked = asked_.at(read);
    return asked.ok && !asked.read.empty() &&
           asked.read[0] == world_->history().stamp_of(asked_.at(write).write);
}

// ---- time

void Stage::until(const std::string& what, const std::function<bool()>& condition, Duration bound) {
    const Instant end = world_->now() + bound;
    while (!condition()) {
        if (world_->now() >= end || !world_->run_one()) {
            throw Violation("scenario", fmt::format("waited {:.0f} s in vain until {}; {}", bound.seconds(),
                                                    what, world_->state_text()));
        }
    }
}

void Stage::step_until(const std::string& what, const std::function<bool()>& condition, Duration bound) {
    until(what, condition, bound);
    line(kWorld, "when", what);
}

void Stage::until_converged() {
    until(
        "both are UpToDate and the guest is served", [this] { return world_->converged(); }, seconds(200));
    line(kWorld, "state", "both replicas UpToDate, the guest is served");
}

void Stage::until_served_by(std::uint32_t node) {
    until(
        fmt::format("node{} serves the guest", node + 1),
        [this, node] {
            const Guest& guest = world_->guest();
            return owner() == node && guest.running() && guest.node() == node && guest.connected() &&
                   view(node).role == replication::Role::primary;
        },
        seconds(120));
}

// ---- faults

void Stage::fault(std::uint32_t node, const std::string& what) {
    line(node, "FAULT", what);
}

void Stage::power_cut(std::uint32_t node) {
    fault(node, "power cut");
    world_->power_off(node);
}

void Stage::power_on(std::uint32_t node) {
    world_->power_on(node);
}

void Stage::kill_blockd(std::uint32_t node) {
    fault(node, "blockd is killed");
    world_->crash_blockd(node);
}

void Stage::start_blockd(std::uint32_t node) {
    world_->start_blockd(node);
}

void Stage::kill_clusterd(std::uint32_t node) {
    fault(node, "clusterd is killed");
    world_->stop_clusterd(node);
}

void Stage::start_clusterd(std::uint32_t node) {
    line(node, "clusterd", "starts");
    world_->start_clusterd(node);
}

void Stage::pause(std::uint32_t node, Duration length) {
    fault(node, fmt::format("paused for {:.0f} s", length.seconds()));
    world_->pause(node, length);
}

void Stage::links(bool cut) {
    for (const Cable cable : {Cable::link1, Cable::link2}) world_->network().cut_both_ways(cable, 0, 1, cut);
}

void Stage::cut_links() {
    fault(kWorld, "all replication links are cut");
    links(true);
}

void Stage::cut_links_one_way(std::uint32_t from) {
    fault(from, "its frames on the replication links no longer arrive");
    for (const Cable cable : {Cable::link1, Cable::link2}) world_->network().cut(cable, from, 1 - from, true);
}

void Stage::heal_links() {
    line(kWorld, "network", "the replication links are whole again");
    links(false);
}

void Stage::cut_control() {
    fault(kWorld, "the control network between the nodes is cut");
    world_->network().cut_both_ways(Cable::control, 0, 1, true);
}

void Stage::heal_control() {
    line(kWorld, "network", "the control network is whole again");
    world_->network().cut_both_ways(Cable::control, 0, 1, false);
}

void Stage::cut_witness(std::uint32_t node, bool cut) {
    if (cut) {
        fault(node, "its path to the witness is cut");
    } else {
        line(node, "network", "its path to the witness is whole again");
    }
    world_->network().cut_both_ways(Cable::control, node, kWitness, cut);
}

void Stage::reset_session() {
    fault(kWorld, "the session between the two blockd is reset");
    world_->link().reset();
}

void Stage::fence(std::uint32_t node, FenceMood mood) {
    constexpr std::array kMoods = {"works", "is slow", "fails", "hangs", "lies", "only cycles the power"};
    fault(node, fmt::format("its fence device {}", kMoods.at(static_cast<std::size_t>(mood))));
    world_->set_fence(node, mood);
}

// ---- looking

bool Stage::alone(std::uint32_t node) const {
    const VolumeRecord& record = world_->committed().record;
    return record.replicas[node].in_ack_set && !record.replicas[1 - node].in_ack_set;
}

bool Stage::both() const {
    const VolumeRecord& record = world_->committed().record;
    return record.replicas[0].in_ack_set && record.replicas[1].in_ack_set;
}

std::uint64_t Stage::generation() const {
    return world_->committed().record.generation.counter;
}

std::uint32_t Stage::owner() const {
    const auto& owner = world_->committed().record.owner;
    return !owner ? 2 : owner->node == "node1" ? 0 : 1;
}

void Stage::end() {
    world_->heal();
    links(false);
    until_converged();
    quiet_ = true;
    world_->finish_checks();
    quiet_ = false;
    line(kWorld, "end", "both replicas are byte-identical, and every read shows the last write");
}

}  // namespace gemel::sim
