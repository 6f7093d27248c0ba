#include "sim/mutants.hpp"

#include <cstdio>
#include <string>

#include "core/replication/mutants.hpp"
#include "sim/control_mutants.hpp"
#include "sim/exhaustive.hpp"
#include "sim/runner.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kBudget = 200;  // seeds

std::string in_exhaustive(const std::string& mutant, std::uint32_t jobs) {
    ExhaustivePlan plan;
    plan.operations = 2;
    plan.jobs = jobs;
    plan.quiet = true;
    plan.mutant = mutant;
    plan.stop_at_first = true;
    const ExhaustiveSummary summary = run_exhaustive(plan);
    return summary.first.empty() ? std::string() : "exhaustive mode: " + summary.first.substr(0, 70);
}

std::string in_seeds(const std::string& mutant, std::uint32_t jobs, std::uint64_t& seeds) {
    RunPlan plan;
    plan.seeds = kBudget;
    plan.jobs = jobs;
    plan.quiet = true;
    plan.oracle = true;  // the engine's promises, whatever the control plane
    plan.stop_after_failures = 1;
    plan.mutant = mutant;
    const RunSummary summary = run_seeds(plan);
    seeds = summary.seeds;
    if (summary.failures.empty()) return {};
    return summary.failures[0].promise + " in seed " + std::to_string(summary.failures[0].seed);
}

}  // namespace

bool hunt_mutants(std::uint32_t jobs, std::string_view only) {
    std::printf("%-34s %-10s %7s  %s\n", "mutant", "breaks", "seeds", "found by");
    bool all = true;
    if (const std::string broken = broken_scenario({}); !broken.empty()) {
        std::printf("without any mutant: %s\n", broken.c_str());
        return false;
    }
    for (const replication::MutantEntry& mutant : replication::kEngineMutants) {
        if (!only.empty() && only != mutant.name) continue;
        const std::string name(mutant.name);
        std::uint64_t seeds = 0;
        std::string by = broken_scenario(name);
        if (by.empty()) by = in_exhaustive(name, jobs);
        if (by.empty()) by = in_seeds(name, jobs, seeds);
        all = all && !by.empty();
        if (by.empty()) by = "NOT FOUND";
        std::printf("%-34s %-10s %7llu  %s\n", name.c_str(), std::string(mutant.breaks).c_str(),
                    static_cast<unsigned long long>(seeds), by.c_str());
        std::fflush(stdout);
    }
    return hunt_control_mutants(jobs, only) && all;
}

}  // namespace gemel::sim
