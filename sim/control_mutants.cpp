#include "sim/control_mutants.hpp"

#include <cstdio>
#include <string>

#include "core/cluster/mutants.hpp"
#include "sim/runner.hpp"

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
         {cut_between_nodes, store_trouble, pause_short, fence_broken}},
        {"leave_without_new_revision",
         std::nullopt,
         {flap_links, store_trouble, cut_links, crash_blockd, power_cut_owner}},
        {"regrant_before_refusal", Voters::three, {long_partition}},
        {"fence_unverified_accepted", std::nullopt, {fence_broken, cut_between_nodes, power_cut}},
        {"fence_any_incarnation", Voters::three, {power_cut_owner, fence_slow, reboot_fast}},
        {"proof_unbounded", Voters::two, {long_partition}},
        {"proof_not_voided", std::nullopt, {cut_between_nodes, fence_slow, cut_control}},
        {"start_without_lookup", std::nullopt, {clusterd_crash, handover, guest_crash}},
        {"ask_skipped", Voters::two, {cut_control, crash_blockd, cut_links_one_way, cut_links}},
        {"boot_check_skipped", Voters::two, {store_image, power_cut, blackout}},
        {"nonce_ignored", std::nullopt, {store_image}},
        {"fence_delay_skipped", Voters::two, {cut_between_nodes, fence_slow}},
        {"restarts_unbounded", std::nullopt, {poison_guest}},
        {"guard_never_kills", Voters::three, {long_partition, cut_everything_between, cut_witness_path}},
    };
    return kProfiles;
}

}  // namespace

HuntProfile hunt_profile(std::string_view mutant) {
    for (const HuntProfile& profile : profiles())
        if (profile.mutant == mutant) return profile;
    return {mutant, std::nullopt, {}};
}

bool hunt_control_mutants(std::uint32_t jobs, std::string_view only) {
    bool all = true;
    for (const cluster::MutantName& mutant : cluster::kMutants) {
        if (!only.empty() && only != mutant.name) continue;
        const HuntProfile profile = hunt_profile(mutant.name);
        RunPlan plan;
        plan.seeds = kBudget;
        plan.jobs = jobs;
        plan.quiet = true;
        plan.stop_after_failures = 1;
        plan.mutant = std::string(mutant.name);
        plan.voters = profile.voters;
        plan.kinds = profile.faults;
        const RunSummary summary = run_seeds(plan);
        const bool found = !summary.failures.empty();
        all = all && found;
        std::string by = "NOT FOUND";
        if (found) by = summary.failures[0].promise + " in seed " + std::to_string(summary.failures[0].seed);
        std::printf("%-34s %-10s %7llu  %s\n", plan.mutant.c_str(), "control",
                    static_cast<unsigned long long>(summary.seeds), by.c_str());
        std::fflush(stdout);
    }
    return all;
}

}  // namespace gemel::sim
