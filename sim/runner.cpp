#include "sim/runner.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/mutant.hpp"

namespace gemel::sim {
namespace {

using Clock = std::chrono::steady_clock;

struct Shared {
    std::atomic<std::uint64_t> next{0};
    std::atomic<std::uint64_t> done{0};
    std::atomic<std::uint64_t> failed{0};
    std::atomic<std::uint64_t> stop{0};
};

struct Worker {
    pid_t pid = -1;
    int from = -1;              // its report
    std::uint64_t current = 0;  // seed it works at
    std::string buffer;
    bool ended = false;
};

void write_all(int to, std::string_view text) {
    while (!text.empty()) {
        const ssize_t count = ::write(to, text.data(), text.size());
        if (count < 0) {
            if (errno == EINTR) continue;
            ::_exit(3);
        }
        text.remove_prefix(static_cast<std::size_t>(count));
    }
}

// A report is lines: "S seed", "F promise", "T text", "C counter line", "U cpu-microseconds".
void report_failure(int to, const SeedResult& result) {
    std::string text = "F " + result.promise + "\nT " + result.what + "\n";
    text += fmt::format("T at virtual time {:.6f} after {} requests and {} faults\n", result.virtual_seconds,
                        result.requests, result.faults);
    for (const std::string& line : result.last_events) text += "T   " + line + "\n";
    write_all(to, text);
}

[[noreturn]] void work(const RunPlan& plan, Shared& shared, int to) {
#ifdef GEMEL_MUTANTS
    select_mutant(plan.mutant);
#endif
    Counters counters;
    while (shared.stop == 0) {
        const std::uint64_t index = shared.next.fetch_add(1);
        if (index >= plan.seeds) break;
        const SeedOptions options = plan.options_for(plan.first_seed + index);
        write_all(to, fmt::format("S {}\n", options.seed));
        const SeedResult result = run_one_seed(options, counters);
        shared.done.fetch_add(1);
        if (result.ok) continue;
        report_failure(to, result);
        if (shared.failed.fetch_add(1) + 1 >= plan.stop_after_failures) shared.stop = 1;
    }
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    const auto micros = [](const timeval& t) {
        return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(t.tv_usec);
    };
    std::string text;
    std::string table = counters.table();
    for (std::size_t at = 0; at < table.size();) {
        const std::size_t end = std::min(table.find('\n', at), table.size());
        text += "C " + table.substr(at, end - at) + "\n";
        at = end + 1;
    }
    write_all(to, text + fmt::format("U {}\n", micros(used.ru_utime) + micros(used.ru_stime)));
    ::_exit(0);
}

void take_line(RunSummary& summary, Worker& worker, std::string_view line) {
    if (line.size() < 2) return;
    const std::string_view rest = line.substr(2);
    switch (line[0]) {
        case 'S': worker.current = std::strtoull(std::string(rest).c_str(), nullptr, 10); break;
        case 'F': summary.failures.push_back(Failure{worker.current, std::string(rest), {}}); break;
        case 'T':
            for (auto failure = summary.failures.rbegin(); failure != summary.failures.rend(); ++failure) {
                if (failure->seed == worker.current) {
                    failure->text += std::string(rest) + "\n";
                    break;
                }
            }
            break;
        case 'C': summary.counters.merge(rest); break;
        case 'U':
            summary.cpu_seconds +=
                static_cast<double>(std::strtoull(std::string(rest).c_str(), nullptr, 10)) / 1e6;
            break;
        default: break;
    }
}

void take_input(RunSummary& summary, Worker& worker) {
    char chunk[16384];
    const ssize_t count = ::read(worker.from, chunk, sizeof chunk);
    if (count <= 0) {
        if (count < 0 && errno == EINTR) return;
        worker.ended = true;
        return;
    }
    worker.buffer.append(chunk, static_cast<std::size_t>(count));
    std::size_t start = 0;
    for (std::size_t end = worker.buffer.find('\n'); end != std::string::npos;
         end = worker.buffer.find('\n', start)) {
        take_line(summary, worker, std::string_view(worker.buffer).substr(start, end - start));
        start = end + 1;
    }
    worker.buffer.erase(0, start);
}

void start_worker(const RunPlan& plan, Shared& shared, Worker& worker) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
        std::fprintf(stderr, "gemel-sim: no pipe: %s\n", std::strerror(errno));
        ::exit(2);
    }
    std::fflush(stdout);
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::close(ends[0]);
        work(plan, shared, ends[1]);
    }
    ::close(ends[1]);
    worker = Worker{pid, ends[0], 0, {}, false};
}

void print_failure(Failure& failure, const std::string& mutant) {
    failure.printed = true;
    std::printf("seed %llu breaks %s%s%s\n%s  again: gemel-sim --seed %llu --seeds 1 --trace\n",
                static_cast<unsigned long long>(failure.seed), failure.promise.c_str(),
                mutant.empty() ? "" : " with mutant ", mutant.c_str(), failure.text.c_str(),
                static_cast<unsigned long long>(failure.seed));
    std::fflush(stdout);
}

// Reaps a worker that ended; one that was killed by a signal failed at the seed it worked at.
void reap(const RunPlan& plan, Shared& shared, RunSummary& summary, Worker& worker) {
    int status = 0;
    ::waitpid(worker.pid, &status, 0);
    ::close(worker.from);
    worker.from = -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    const std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                                : fmt::format("exit {}", WEXITSTATUS(status));
    summary.failures.push_back(
        Failure{worker.current, "INVARIANT", "the process ended by " + how + "; its message stands above\n"});
    shared.done.fetch_add(1);
    if (shared.failed.fetch_add(1) + 1 >= plan.stop_after_failures) shared.stop = 1;
    if (shared.stop == 0 && shared.next < plan.seeds) {
        start_worker(plan, shared, worker);
    }
}

}  // namespace

SeedOptions RunPlan::options_for(std::uint64_t seed) const {
    SeedOptions options;
    options.seed = seed;
    options.only = only;
    options.oracle = oracle;
    options.voters = voters;
    options.kinds = kinds;
    return options;
}

SeedResult run_one_seed(const SeedOptions& options, Counters& counters) {
    World world(options, counters);
    return world.run();
}

RunSummary run_seeds(const RunPlan& plan) {
    RunSummary summary;
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::fprintf(stderr, "gemel-sim: no shared memory: %s\n", std::strerror(errno));
        ::exit(2);
    }
    Shared& shared = *new (memory) Shared;
    const Clock::time_point began = Clock::now();
    Clock::time_point said = began;
    std::vector<Worker> workers(plan.jobs);
    for (Worker& worker : workers) start_worker(plan, shared, worker);
    for (;;) {
        std::vector<pollfd> polled;
        for (const Worker& worker : workers) {
            if (worker.from >= 0) polled.push_back(pollfd{worker.from, POLLIN, 0});
        }
        if (polled.empty()) break;
        ::poll(polled.data(), polled.size(), 500);
        for (const pollfd& ready : polled) {
            if (ready.revents == 0) continue;
            for (Worker& worker : workers) {
                if (worker.from != ready.fd) continue;
                take_input(summary, worker);
                if (worker.ended) reap(plan, shared, summary, worker);
                break;
            }
        }
        if (!plan.quiet && Clock::now() - said > std::chrono::seconds(2)) {
            said = Clock::now();
            for (Failure& failure : summary.failures) {
                // its text is whole once its worker speaks of another seed
                const bool whole = std::ranges::none_of(
                    workers, [&](const Worker& worker) { return worker.current == failure.seed; });
                if (whole && !failure.printed) print_failure(failure, plan.mutant);
            }
            std::printf("  %llu of %llu seeds, %zu failed\n",
                        static_cast<unsigned long long>(shared.done.load()),
                        static_cast<unsigned long long>(plan.seeds), summary.failures.size());
            std::fflush(stdout);
        }
    }
    for (Failure& failure : summary.failures) {
        if (!plan.quiet && !failure.printed) print_failure(failure, plan.mutant);
    }
    summary.seeds = std::min<std::uint64_t>(shared.done, plan.seeds);
    summary.wall_seconds = std::chrono::duration<double>(Clock::now() - began).count();
    ::munmap(memory, sizeof(Shared));
    return summary;
}

static void require_control(Counters& counters) {
    for (const char* name : {"boot.choosing",
                             "boot.starting",
                             "boot.asking",
                             "boot.registering",
                             "boot.acting",
                             "boot.setting_aside",
                             "boot.joining",
                             "arbiter.waiting_turn",
                             "arbiter.fencing",
                             "arbiter.preparing",
                             "arbiter.activating",
                             "arbiter.asking",
                             "standing.gained",
                             "standing.lost",
                             "election.elected",
                             "election.resigned",
                             "store_condition.waiting",
                             "store_condition.quorate",
                             "store_condition.forcing",
                             "store_condition.old",
                             "store.leader_elected",
                             "store.lease_expired",
                             "store.set_aside",
                             "store.joined",
                             "store.forced_and_dropped",
                             "clusterd.watch_lost",
                             "guard.state_freezing",
                             "guard.state_frozen",
                             "guard.state_thawing",
                             "fence.begun",
                             "domain.destroyed",
                             "domain.shut_down",
                             "operator.moves_guest",
                             "operator.replaces_replica",
                             "site.converged"}) {
        counters.require(name);
    }
}

void require_counters(Counters& counters) {
    for (std::size_t i = 0; i < kFaultKinds; ++i) {
        counters.require(fmt::format("fault.{}", name_of(static_cast<Fault>(i))));
    }
    for (const char* name : {"guest.read",
                             "guest.write",
                             "guest.flush",
                             "guest.discard",
                             "guest.write_zeroes",
                             "guest.started",
                             "commit.peer_left",
                             "commit.peer_joined",
                             "commit.local_failed",
                             "commit.grant",
                             "commit.release",
                             "commit.forced_single_member",
                             "propose.peer_left",
                             "propose.peer_joined",
                             "propose.local_failed",
                             "store.lost_reply",
                             "store.no_quorum",
                             "fence.verified",
                             "fence.failed",
                             "guard.paused",
                             "guard.resumed",
                             "site.watchdog_reset",
                             "site.waited_for_outlived_io",
                             "site.old_image_restored",
                             "site.replica_replaced",
                             "site.converged",
                             "notice.role_changed",
                             "notice.sync_changed",
                             "notice.verdict",
                             "notice.resync_finished",
                             "notice.frozen",
                             "notice.thawed",
                             "notice.lease_lapsed",
                             "notice.lease_resumed",
                             "notice.disk_error",
                             "notice.over_network",
                             "notice.block_repaired",
                             "site.read_from_peer",
                             "site.guest_io_error"}) {
        counters.require(name);
    }
    require_control(counters);
}

}  // namespace gemel::sim
