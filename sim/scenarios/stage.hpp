// Stage: a world for one scripted scenario, in virtual time. The script says what happens and checks what
// must come of it; everything that matters (requests, faults, states, verdicts, commits, checks) becomes a
// line of the scenario's log in the words of the field, which is compared with the golden one. Every checker
// of the world watches as it does for a seed. Node 0 is node1, and owns the volume when a scenario begins.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/world/world.hpp"

namespace gemel::sim {

struct StageOptions {
    SeedOptions::Script volume = {};
    Voters voters = Voters::three;
    bool real_control = false;  // clusterd's logic instead of rules that know everything
    bool formed = true;         // it begins when node1 owns the volume; else no host has power yet
};

// A request of the guest and what became of it.
struct Asked {
    GuestRequest request;
    WriteNumber write = 0;
    bool done = false;
    bool ok = false;
    std::vector<Stamp> read;
};

class Stage {
  public:
    explicit Stage(const StageOptions& stage_options = {});

    // -- the story
    void say(const std::string& text);
    // the scenario's own promise: a line when it holds, the end of the scenario when not
    void check(const std::string& what, bool holds);

    // -- the guest; blocks are 4 KiB
    using Handle = std::uint64_t;
    Handle write(std::uint64_t block, std::uint32_t blocks = 1, bool fua = false);
    Handle read(std::uint64_t block, std::uint32_t blocks = 1);
    Handle flush();
    Handle discard(std::uint64_t block, std::uint32_t blocks = 1);
    Handle zero(std::uint64_t block, std::uint32_t blocks = 1);
    const Asked& asked(Handle handle) const { return asked_.at(handle); }
    bool done(Handle handle) const { return asked_.at(handle).done; }
    bool acknowledged(Handle handle) const { return done(handle) && asked_.at(handle).ok; }
    // waits for success
    void finish(Handle handle);
    void finish(const std::vector<Handle>& handles);
    // writes and waits
    Handle written(std::uint64_t block, std::uint32_t blocks = 1);
    // node's disk shows that write (or one not before it): in its cache, or on stable storage
    bool shows(std::uint32_t node, Handle handle) const;
    bool shows(std::uint32_t node, const std::vector<Handle>& handles) const;
    bool stable_on(std::uint32_t node, Handle handle) const;
    // the first sector of a finished read shows that write
    bool read_shows(Handle read, Handle write) const;

    // -- time
    void run(Duration duration) { world_->run_for(duration); }
    void until(const std::string& what, const std::function<bool()>& condition, Duration bound = seconds(60));
    // event by event, so that what follows happens between two events
    void step_until(const std::string& what, const std::function<bool()>& condition,
                    Duration bound = seconds(10));
    void until_converged();
    // the guest runs on that node
    void until_served_by(std::uint32_t node);

    // -- faults
    void power_cut(std::uint32_t node);
    void power_on(std::uint32_t node);
    void kill_blockd(std::uint32_t node);
    void start_blockd(std::uint32_t node);
    void kill_clusterd(std::uint32_t node);
    void start_clusterd(std::uint32_t node);
    void pause(std::uint32_t node, Duration length);
    void cut_links();
    void cut_links_one_way(std::uint32_t from);
    void heal_links();
    void cut_control();
    void heal_control();
    void cut_witness(std::uint32_t node, bool cut);
    void reset_session();
    void fence(std::uint32_t node, FenceMood mood);
    void fault(std::uint32_t node, const std::string& what);  // only says it

    // -- looking
    World& world() { return *world_; }
    replication::View view(std::uint32_t node) const { return world_->block(node).view(); }
    bool alone(std::uint32_t node) const;  // the committed ack set is this node
    bool both() const;                     // ... both nodes
    std::uint64_t generation() const;
    std::uint32_t owner() const;  // 2: nobody
    Disk& disk(std::uint32_t node) { return world_->disk(node); }
    // lines of the log so far that contain the text
    std::size_t told(std::string_view text) const;
    // how often that event of the trace happened to that node since the story began
    std::uint64_t count(std::string_view event, std::uint32_t node) const;

    // all is healed: both replicas UpToDate and equal, everything ever written is read back
    void end();
    const std::vector<std::string>& log() const { return log_; }

    void line(std::uint32_t node, std::string_view what, std::string_view text);

  private:
    void begin(const StageOptions& stage_options);
    void hear_cluster(std::uint32_t node, std::string_view name, std::uint64_t a, std::string_view text);
    void hear(std::uint32_t node, std::string_view name, std::uint64_t a, std::string_view text);
    bool beyond_counting(std::string_view name, std::uint32_t victim, std::string& shown);
    Handle ask(GuestOperation operation, std::uint64_t block, std::uint32_t blocks, bool fua);
    void completed(const GuestRequest& request, WriteNumber write, bool ok, std::span<const Stamp> read);
    void links(bool cut);

    Counters counters_;
    std::unique_ptr<World> world_;
    std::vector<std::string> log_;
    std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> counted_;
    bool cluster_;  // the control plane's story: its words, not the engines'
    std::map<Handle, Asked> asked_;
    std::array<std::uint32_t, 2> failed_in_turn_{};
    bool quiet_ = true;  // before the story begins
    Instant began_;
};

}  // namespace gemel::sim
