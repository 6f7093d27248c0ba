// Faults: what can go wrong, as a list. Each seed draws a subset (swarm: a run with few kinds goes deeper
// into each than one with all), and the injector draws from it at random moments, short after one another as
// often as far apart.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/prng.hpp"

namespace gemel::sim {

enum class Fault : std::uint8_t {
    power_cut,
    power_cut_owner,
    power_cut_peer,
    blackout,
    reboot_fast,
    crash_blockd,
    crash_both_blockd,
    pause_short,
    pause_long,
    cut_links,
    cut_links_one_way,
    cut_one_link,
    cut_control,
    cut_everything_between,
    cut_witness_path,
    witness_down,
    reset_session,
    flap_links,
    lossy_links,
    slow_links,
    slow_disk,
    hang_disk,
    flush_error,
    write_error,
    metadata_write_error,
    bad_sector,
    dead_disk,
    misdirected_metadata,
    old_image,
    guest_crash,
    handover,
    clusterd_crash,
    store_trouble,
    fence_broken,
    corrupt_frame,
    short_write,
    version_skew,
    cut_between_nodes,
    power_cut_at_commit,
    fence_lies,
    fence_slow,
    poison_guest,
    leave_and_return,
    witness_image,
    long_partition,
    store_image,
    migrate,
    migrate_and_break,
    count,
};
inline constexpr std::size_t kFaultKinds = static_cast<std::size_t>(Fault::count);

std::string_view name_of(Fault fault);

struct FaultPlan {
    std::vector<Fault> kinds;  // drawn from, repeated kinds are likelier
    std::uint32_t count = 12;
    static FaultPlan swarm(Prng& random);
};

}  // namespace gemel::sim
