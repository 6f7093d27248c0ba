#include "sim/mutants.hpp"

#include <array>
#include <cstdio>
#include <string>

#include "sim/runner.hpp"

namespace gemel::sim {
namespace {

constexpr std::array<Mutant, 1> kMutants = {{
    {"intent_before_data", "D3", 400},
}};

}  // namespace

std::span<const Mutant> mutants() {
    return kMutants;
}

bool hunt_mutants(std::uint32_t jobs, std::string_view only) {
    std::printf("%-36s %-8s %8s  %s\n", "mutant", "promise", "seeds", "found by");
    bool all = true;
    for (const Mutant& mutant : mutants()) {
        if (!only.empty() && only != mutant.name) continue;
        RunPlan plan;
        plan.seeds = mutant.seeds;
        plan.jobs = jobs;
        plan.quiet = true;
        plan.stop_after_failures = 1;
        plan.mutant = std::string(mutant.name);
        const RunSummary summary = run_seeds(plan);
        const bool found = !summary.failures.empty();
        all = all && found;
        const std::string by =
            found ? summary.failures[0].promise + " in seed " + std::to_string(summary.failures[0].seed)
                  : "NOT FOUND";
        std::printf("%-36s %-8s %8llu  %s\n", std::string(mutant.name).c_str(),
                    std::string(mutant.promise).c_str(), static_cast<unsigned long long>(summary.seeds),
                    by.c_str());
        std::fflush(stdout);
    }
    return all;
}

}  // namespace gemel::sim
