#include "sim/exhaustive.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "base/mutant.hpp"
#include "sim/world/violation.hpp"
#include "sim/world/world.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kFarBlock = 1024;  // in another extent
constexpr std::uint32_t kMostEvents = 400;
constexpr Duration kDark = milliseconds(300);

struct Step {
    GuestOperation operation;
    std::uint64_t block;
    char letter;
};
// the alphabet: w and x write the two blocks, d discards the first, f flushes
constexpr std::array<Step, 4> kSteps = {{{GuestOperation::write, 0, 'w'},
                                         {GuestOperation::write, kFarBlock, 'x'},
                                         {GuestOperation::flush, 0, 'f'},
                                         {GuestOperation::discard, 0, 'd'}}};

enum class Crash : std::uint8_t {
    power_owner,
    power_peer,
    power_both,
    blockd_owner,
    blockd_peer,
    links,
    count
};
constexpr std::array<std::string_view, 6> kCrashNames = {
    "power cut of the owner",     "power cut of the peer",     "power cut of both",
    "blockd of the owner killed", "blockd of the peer killed", "links cut"};

using Program = std::vector<std::uint8_t>;

std::string name_of(const Program& program) {
    std::string text;
    for (const std::uint8_t step : program) text += kSteps[step].letter;
    return text;
}

std::vector<Program> all_programs(std::uint32_t operations) {
    std::vector<Program> programs;
    std::vector<Program> last = {{}};
    for (std::uint32_t length = 1; length <= operations; ++length) {
        std::vector<Program> next;
        for (const Program& program : last) {
            for (std::size_t step = 0; step < kSteps.size(); ++step) {
                next.push_back(program);
                next.back().push_back(static_cast<std::uint8_t>(step));
            }
        }
        programs.insert(programs.end(), next.begin(), next.end());
        last = std::move(next);
    }
    return programs;
}

std::uint32_t owner_of(World& world) {
    return world.guest().node();
}

void crash(World& world, Crash kind) {
    const std::uint32_t owner = owner_of(world);
    switch (kind) {
        case Crash::power_owner: world.power_off(owner); break;
        case Crash::power_peer: world.power_off(1 - owner); break;
        case Crash::power_both:
            world.power_off(owner);
            world.power_off(1 - owner);
            break;
        case Crash::blockd_owner: world.crash_blockd(owner); break;
        case Crash::blockd_peer: world.crash_blockd(1 - owner); break;
        case Crash::links:
            world.network().cut_both_ways(Cable::link1, 0, 1, true);
            world.network().cut_both_ways(Cable::link2, 0, 1, true);
            break;
        case Crash::count: break;
    }
}

// After the crash: all is healed, both become UpToDate and equal, what was acknowledged is there.
void recover(World& world, Crash kind) {
    world.run_for(kind == Crash::links || kind == Crash::power_owner ? seconds(4) : kDark);
    world.heal();
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (world.host(node).up()) world.start_blockd(node);
    }
    if (!world.run_until([&world] { return world.converged(); }, seconds(200)))
        throw Violation("C12", fmt::format("no convergence after the crash, {}: {}", world.missing(),
                                           world.state_text()));
    world.finish_checks();
}

// The child of a fork: crashes, recovers, answers with its exit status and one line.
[[noreturn]] void try_crash(World& world, Crash kind, int to) {
    std::string failure;
    try {
        crash(world, kind);
        recover(world, kind);
    } catch (const Violation& violation) {
        failure = violation.what();
    }
    if (!failure.empty()) {
        failure.resize(std::min<std::size_t>(failure.size(), 3000));
        if (::write(to, failure.data(), failure.size()) < 0) ::_exit(3);
    }
    ::_exit(failure.empty() ? 0 : 1);
}

class Explorer {
  public:
    explicit Explorer(const ExhaustivePlan& plan) : plan_(plan) {}

    ExhaustiveSummary run() {
        for (const Program& program : all_programs(plan_.operations)) {
            ++summary_.programs;
            try {
                explore(program);
            } catch (const Violation& violation) {
                failed(fmt::format("'{}', without any crash: {}", name_of(program), violation.what()));
                last_step_ = 0;
            }
            if (stop()) break;
        }
        while (!running_.empty()) reap();
        return summary_;
    }

  private:
    struct Child {
        pid_t pid;
        int from;
        std::string what;
    };

    bool stop() const { return plan_.stop_at_first && summary_.failed > 0; }

    void explore(const Program& program) {
        Counters counters;
        SeedOptions options;
        options.seed = 1;
        options.oracle = true;
        options.voters = Voters::three;
        options.script = SeedOptions::Script{8U << 20, 2, false};
        World world(options, counters);
        world.begin();
        if (!world.run_until([&world] { return world.converged(); }, seconds(60)))
            throw Violation("C12", "the cluster does not come up");
        for (const std::uint8_t step : program) {
            const Step& wanted = kSteps[step];
            const std::uint32_t length = wanted.operation == GuestOperation::flush ? 0 : kBlockBytes;
            world.guest().ask(wanted.operation, wanted.block * kBlockBytes, length, false);
        }
        for (std::uint32_t event = 0; event < kMostEvents && !stop(); ++event) {
            for (std::uint8_t kind = 0; kind < static_cast<std::uint8_t>(Crash::count); ++kind) {
                fork_one(world, static_cast<Crash>(kind), program, event);
            }
            if (world.guest().idle() && event >= last_step_ + 4) break;
            if (!world.guest().idle()) last_step_ = event;
            world.run_one();
        }
        last_step_ = 0;
    }

    void fork_one(World& world, Crash kind, const Program& program, std::uint32_t event) {
        while (running_.size() >= plan_.jobs) reap();
        ++summary_.schedules;
        int ends[2];
        if (::pipe(ends) != 0) throw Violation("simulator", "no pipe for another schedule");
        std::fflush(stdout);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::close(ends[0]);
            try_crash(world, kind, ends[1]);
        }
        ::close(ends[1]);
        running_.push_back(Child{pid, ends[0],
                                 fmt::format("'{}', {} after event {}", name_of(program),
                                             kCrashNames[static_cast<std::size_t>(kind)], event)});
    }

    void reap() {
        const Child child = running_.front();
        running_.erase(running_.begin());
        std::array<char, 4096> text{};
        const ssize_t count = ::read(child.from, text.data(), text.size());
        ::close(child.from);
        int status = 0;
        ::waitpid(child.pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
        const std::string why = count > 0 ? std::string(text.data(), static_cast<std::size_t>(count))
                                          : std::string("INVARIANT: its message stands above");
        failed(child.what + ": " + why);
    }

    void failed(const std::string& why) {
        ++summary_.failed;
        if (summary_.first.empty()) summary_.first = why;
        if (!plan_.quiet && summary_.failed <= 5) std::printf("  %s\n", why.c_str());
    }

    ExhaustivePlan plan_;
    ExhaustiveSummary summary_;
    std::vector<Child> running_;
    std::uint32_t last_step_ = 0;
};

}  // namespace

ExhaustiveSummary run_exhaustive(const ExhaustivePlan& plan) {
#ifdef GEMEL_MUTANTS
    select_mutant(plan.mutant);
#endif
    return Explorer(plan).run();
}

}  // namespace gemel::sim
