#include "sim/mutants.hpp"

#include <cstdio>
#include <string>

#include "core/replication/mutants.hpp"
#include "sim/runner.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kBudget = 200;  // seeds

}  // namespace

bool hunt_mutants(std::uint32_t jobs, std::string_view only) {
    std::printf("%-34s %-10s %7s  %s\n", "mutant", "breaks", "seeds", "found by");
    bool all = true;
    for (const replication::MutantEntry& mutant : replication::kEngineMutants) {
        if (!only.empty() && only != mutant.name) continue;
        RunPlan plan;
        plan.seeds = kBudget;
        plan.jobs = jobs;
        plan.quiet = true;
        plan.oracle = true;  // the engine's promises, whatever the control plane
        plan.stop_after_failures = 1;
        plan.mutant = std::string(mutant.name);
        const RunSummary summary = run_seeds(plan);
        const bool found = !summary.failures.empty();
        all = all && found;
        std::string by = "NOT FOUND";
        if (found) by = summary.failures[0].promise + " in seed " + std::to_string(summary.failures[0].seed);
        std::printf("%-34s %-10s %7llu  %s\n", plan.mutant.c_str(), std::string(mutant.breaks).c_str(),
                    static_cast<unsigned long long>(summary.seeds), by.c_str());
        std::fflush(stdout);
    }
    return all;
}

}  // namespace gemel::sim
