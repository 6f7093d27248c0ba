#include "sim/mutants.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "core/replication/mutants.hpp"
#include "sim/control_mutants.hpp"
#include "sim/exhaustive.hpp"
#include "sim/runner.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kBudget = 200;  // seeds
// Hunted by exhaustive mode besides, whatever found them first: it must be able to find something.
constexpr std::array<std::string_view, 3> kByExhaustion = {"intent_before_data", "flush_ignores_peer",
                                                           "lease_not_checked"};

std::string in_exhaustive(const std::string& mutant, std::uint32_t jobs) {
    ExhaustivePlan plan;
    plan.operations = 2;
    plan.jobs = jobs;
    plan.quiet = true;
    plan.mutant = mutant;
    plan.stop_at_first = true;
    const ExhaustiveSummary summary = run_exhaustive(plan);
    if (summary.first.empty()) return {};
    const std::string first = summary.first.substr(0, summary.first.find('\n'));
    return fmt::format("exhaustive mode, schedule {}: {}", summary.schedules, first.substr(0, 90));
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

// In everything an engine mutant is hunted with; nothing for the unbroken program.
std::string hunt_engine(const std::string& mutant, std::uint32_t jobs, std::uint64_t& seeds) {
    std::string by = broken_scenario(mutant);
    if (by.empty()) by = in_exhaustive(mutant, jobs);
    if (by.empty()) by = in_seeds(mutant, jobs, seeds);
    return by;
}

bool print_row(std::string_view name, std::string_view breaks, std::uint64_t seeds, const std::string& by) {
    const std::string& shown = by.empty() ? "NOT FOUND" : by;
    std::fputs(fmt::format("{:<34} {:<10} {:>6}  {}\n", name, breaks, seeds, shown).c_str(), stdout);
    std::fflush(stdout);
    return !by.empty();
}

bool hunt_engine_mutants(std::uint32_t jobs, std::string_view only) {
    std::uint64_t seeds = 0;
    if (const std::string broken = hunt_engine({}, jobs, seeds); !broken.empty()) {
        std::printf("without any mutant: %s\nno engine mutant can be hunted until that is repaired\n",
                    broken.c_str());
        return false;
    }
    bool all = true;
    for (const replication::MutantEntry& mutant : replication::kEngineMutants) {
        if (!only.empty() && only != mutant.name) continue;
        seeds = 0;
        const std::string by = hunt_engine(std::string(mutant.name), jobs, seeds);
        all = print_row(mutant.name, mutant.breaks, seeds, by) && all;
    }
    for (const std::string_view name : kByExhaustion) {
        if (!only.empty() && only != name) continue;
        all = print_row(name, "again", 0, in_exhaustive(std::string(name), jobs)) && all;
    }
    return all;
}

bool is_engine_mutant(std::string_view name) {
    return std::ranges::find(replication::kEngineMutants, name, &replication::MutantEntry::name) !=
           replication::kEngineMutants.end();
}

}  // namespace

bool hunt_mutants(std::uint32_t jobs, std::string_view only) {
    const bool engine = only.empty() || is_engine_mutant(only);
    const bool control = only.empty() || is_control_mutant(only);
    if (!engine && !control) {
        std::printf("there is no mutant '%s'\n", std::string(only).c_str());
        return false;
    }
    std::printf("%-34s %-10s %6s  %s\n", "mutant", "breaks", "seeds", "found by");
    const bool all = !engine || hunt_engine_mutants(jobs, only);
    return (!control || hunt_control_mutants(jobs, only)) && all;
}

}  // namespace gemel::sim
