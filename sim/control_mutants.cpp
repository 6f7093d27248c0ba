#include "sim/control_mutants.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "core/cluster/mutants.hpp"
#include "sim/runner.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kBudget = 200;  // seeds

const std::vector<HuntProfile>& profiles() {
    using enum Fault;
    static const std::vector<HuntProfile> kProfiles = {
        {"standing_ignored", Voters::two, {power_cut, blackout, pause_long, power_cut_owner}},
        {"barrier_skipped", Voters::two, {power_cut_at_commit}},
        {"lineage_not_compared",
         Voters::two,
         {cut_control, crash_blockd, power_cut, store_trouble, cut_between_nodes, clusterd_crash}},
        {"term_not_compared",
         Voters::three,
         {pause_short, store_trouble, cut_between_nodes, cut_control, guest_crash}},
        {"term_not_checked_at_action",
         Voters::three,
         {power_cut_owner, power_cut_peer, store_trouble, pause_short, fence_broken}},
        {"leave_without_new_revision",
         std::nullopt,
         {flap_links, store_trouble, cut_links, crash_blockd, power_cut_owner}},
        {"regrant_before_refusal", Voters::three, {long_partition}},
        {"fence_unverified_accepted", std::nullopt, {fence_broken, cut_between_nodes, power_cut}},
        {"fence_any_incarnation", Voters::three, {power_cut_owner, fence_slow, reboot_fast}},
        {"proof_unbounded", Voters::two, {long_partition}},
        {"proof_not_voided", std::nullopt, {cut_between_nodes, fence_slow, cut_control}},
        {"start_without_lookup", std::nullopt, {clusterd_crash, handover, guest_crash}},
        {"promote_unfenced",
         Voters::three,
         {cut_everything_between, long_partition, pause_long, fence_broken}},
        {"ask_skipped", Voters::two, {cut_control, crash_blockd, cut_links_one_way, cut_links}},
        {"boot_check_skipped", Voters::two, {store_image, power_cut, blackout}},
        {"nonce_ignored", std::nullopt, {store_image}},
        {"fence_delay_skipped", Voters::two, {cut_between_nodes, fence_slow}},
        {"restarts_unbounded", std::nullopt, {poison_guest}},
        {"guard_never_kills", Voters::three, {long_partition, cut_everything_between, cut_witness_path}},
    };
    return kProfiles;
}

RunSummary hunt(const HuntProfile& profile, std::uint32_t jobs, std::string_view mutant, bool whole) {
    RunPlan plan;
    plan.seeds = kBudget;
    plan.jobs = jobs;
    plan.quiet = true;
    plan.stop_after_failures = whole ? ~std::uint64_t{0} : 1;
    plan.mutant = std::string(mutant);
    plan.voters = profile.voters;
    plan.kinds = profile.faults;
    RunSummary summary = run_seeds(plan);
    std::ranges::sort(summary.failures, {}, &Failure::seed);
    return summary;
}

// What the unbroken program breaks under that profile: each promise with its first seed. The same profile is
// run once.
using Broken = std::map<std::string, std::uint64_t>;
const Broken& unbroken_breaks(const HuntProfile& profile, std::uint32_t jobs) {
    static std::map<std::pair<std::optional<Voters>, std::vector<Fault>>, Broken> known;
    const auto [at, fresh] = known.try_emplace({profile.voters, profile.faults});
    if (fresh) {
        for (const Failure& failure : hunt(profile, jobs, {}, true).failures)
            at->second.try_emplace(failure.promise, failure.seed);
    }
    return at->second;
}

// The first failure by a promise that the unbroken program keeps under the same profile.
const Failure* own_failure(const RunSummary& summary, const Broken& unbroken) {
    const auto at = std::ranges::find_if(
        summary.failures, [&](const Failure& failure) { return !unbroken.contains(failure.promise); });
    return at == summary.failures.end() ? nullptr : &*at;
}

std::string text_of(const Broken& unbroken) {
    std::string text;
    for (const auto& [promise, seed] : unbroken)
        text += fmt::format("{}{} in seed {}", text.empty() ? "" : ", ", promise, seed);
    return text;
}

}  // namespace

bool is_control_mutant(std::string_view name) {
    return std::ranges::find(cluster::kMutants, name, &cluster::MutantName::name) != cluster::kMutants.end();
}

HuntProfile hunt_profile(std::string_view mutant) {
    for (const HuntProfile& profile : profiles())
        if (profile.mutant == mutant) return profile;
    return {mutant, std::nullopt, {}};
}

// A scenario first: it says what went wrong. Then seeds.
static bool hunt_one(const HuntProfile& profile, std::uint32_t jobs) {
    std::uint64_t seeds = 0;
    std::string by = broken_scenario(std::string(profile.mutant), true);
    bool found = !by.empty();
    if (!found) {
        RunSummary summary = hunt(profile, jobs, profile.mutant, false);
        const Broken none;
        const Broken& unbroken = summary.failures.empty() ? none : unbroken_breaks(profile, jobs);
        if (!summary.failures.empty() && own_failure(summary, unbroken) == nullptr)
            summary = hunt(profile, jobs, profile.mutant, true);
        seeds = summary.seeds;
        const Failure* own = own_failure(summary, unbroken);
        found = own != nullptr;
        by = found ? fmt::format("{} in seed {}", own->promise, own->seed) : "NOT FOUND";
        if (!unbroken.empty()) by += "; the unbroken program fails its profile by " + text_of(unbroken);
    }
    std::fputs(fmt::format("{:<34} {:<10} {:>6}  {}\n", profile.mutant, "control", seeds, by).c_str(),
               stdout);
    std::fflush(stdout);
    return found;
}

bool hunt_control_mutants(std::uint32_t jobs, std::string_view only) {
    if (const std::string broken = broken_scenario({}, true); !broken.empty()) {
        std::printf("without any mutant: %s\nno control-plane mutant can be hunted until that is repaired\n",
                    broken.c_str());
        return false;
    }
    bool all = true;
    for (const cluster::MutantName& mutant : cluster::kMutants) {
        if (!only.empty() && only != mutant.name) continue;
        all = hunt_one(hunt_profile(mutant.name), jobs) && all;
    }
    return all;
}

}  // namespace gemel::sim
