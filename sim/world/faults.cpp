#include "sim/world/faults.hpp"

namespace gemel::sim {
namespace {

constexpr std::array<std::string_view, kFaultKinds> kNames = {"power_cut",
                                                              "power_cut_owner",
                                                              "power_cut_peer",
                                                              "blackout",
                                                              "reboot_fast",
                                                              "crash_blockd",
                                                              "crash_both_blockd",
                                                              "pause_short",
                                                              "pause_long",
                                                              "cut_links",
                                                              "cut_links_one_way",
                                                              "cut_one_link",
                                                              "cut_control",
                                                              "cut_everything_between",
                                                              "cut_witness_path",
                                                              "witness_down",
                                                              "reset_session",
                                                              "flap_links",
                                                              "lossy_links",
                                                              "slow_links",
                                                              "slow_disk",
                                                              "hang_disk",
                                                              "flush_error",
                                                              "write_error",
                                                              "metadata_write_error",
                                                              "bad_sector",
                                                              "dead_disk",
                                                              "misdirected_metadata",
                                                              "old_image",
                                                              "guest_crash",
                                                              "handover",
                                                              "clusterd_crash",
                                                              "store_trouble",
                                                              "fence_broken",
                                                              "corrupt_frame",
                                                              "short_write",
                                                              "version_skew",
                                                              "cut_between_nodes",
                                                              "power_cut_at_commit",
                                                              "fence_lies",
                                                              "fence_slow",
                                                              "poison_guest",
                                                              "leave_and_return",
                                                              "witness_image",
                                                              "long_partition",
                                                              "store_image",
                                                              "migrate",
                                                              "migrate_and_break"};

}  // namespace

std::string_view name_of(Fault fault) {
    return kNames[static_cast<std::size_t>(fault)];
}

FaultPlan FaultPlan::swarm(Prng& random) {
    FaultPlan plan;
    const std::uint64_t density = 1 + random.below(4);  // of four
    for (std::size_t i = 0; i < kFaultKinds; ++i) {
        if (random.chance(density, 4)) plan.kinds.push_back(static_cast<Fault>(i));
    }
    // every seed breaks something that matters to the mirror
    constexpr std::array<Fault, 6> kCore = {Fault::power_cut,     Fault::cut_links,   Fault::crash_blockd,
                                            Fault::reset_session, Fault::reboot_fast, Fault::power_cut_owner};
    for (int i = 0; i < 2; ++i) plan.kinds.push_back(kCore[random.below(kCore.size())]);
    if (random.chance(1, 2)) {
        for (int i = 0; i < 3; ++i) plan.kinds.push_back(Fault::migrate_and_break);
        plan.kinds.push_back(Fault::migrate);
    }
    plan.count = static_cast<std::uint32_t>(random.between(10, 18));
    return plan;
}

}  // namespace gemel::sim
