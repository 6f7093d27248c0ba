// Runner: many seeds in several processes. Each worker process takes seeds from a shared counter, so that an
// INVARIANT that aborts the process is a failure of a known seed and not the end of the run. Prints progress,
// failures as they come, and the counters at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/world/counters.hpp"
#include "sim/world/world.hpp"

namespace gemel::sim {

struct RunPlan {
    std::uint64_t first_seed = 1;
    std::uint64_t seeds = 100;
    std::uint32_t jobs = 2;
    bool trace = false;
    bool quiet = false;
    std::uint64_t stop_after_failures = 5;
    std::string mutant;  // of a mutants build; empty: none
    std::optional<Fault> only;
    bool oracle = false;
    std::optional<Voters> voters;
    std::vector<Fault> kinds;  // empty: as the seed wants
    SeedOptions options_for(std::uint64_t seed) const;
};

struct Failure {
    std::uint64_t seed = 0;
    std::string promise;  // "INVARIANT" when the process aborted
    std::string text;
    bool printed = false;
};

struct RunSummary {
    std::uint64_t seeds = 0;
    std::vector<Failure> failures;
    Counters counters;
    double cpu_seconds = 0;
    double wall_seconds = 0;
};

// what must be reached over a long run
void require_counters(Counters& counters);
RunSummary run_seeds(const RunPlan& plan);
// one seed in this process, with its trace if wanted
SeedResult run_one_seed(const SeedOptions& options, Counters& counters);

}  // namespace gemel::sim
