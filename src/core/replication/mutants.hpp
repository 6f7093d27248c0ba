// The engine's mutants: one per edge that must hold "stable before" or "checked before". Each is a guard
// mutant("name") at that edge (base/mutant.hpp); the simulator switches them on one at a time and must find
// every one.
#pragma once

#include <array>
#include <string_view>

namespace gemel::replication {

struct MutantEntry {
    std::string_view name;
    std::string_view breaks;  // promise or scenario
    std::string_view what;    // what the mutant does
};

inline constexpr std::array kEngineMutants = std::to_array<MutantEntry>({
    {"intent_before_data", "D3 M2", "data is submitted before its intent transaction is stable"},
    {"generation_before_alone_ack", "D2 G1",
     "writes are acknowledged alone before the new generation is stable"},
    {"ack_before_leave_committed", "D2 W3", "writes are acknowledged alone as soon as the peer is lost"},
    {"bit_cleared_before_peer_stable", "D4", "a dirty bit is cleared when its block is sent"},
    {"bit_cleared_before_own_flush", "D3 D4",
     "a cleared bit reaches the disk before the source has flushed what it sent"},
    {"bitmap_after_extent_reuse", "D3 M3",
     "an extent leaves the intent log before its dirty bits are stable"},
    {"join_after_propose", "H31",
     "acknowledgements wait for the target only after its UpToDate is committed"},
    {"join_written_after_proposed", "H37", "the join intent is not stable before the join is proposed"},
    {"resync_before_leave_committed", "D7",
     "a resync begins as soon as both sides know who is the source, before the target's leave is committed"},
    {"leave_keeps_generation", "H37 G1", "a leave keeps the generation"},
    {"target_not_marked_inconsistent", "D10 R4", "resync data is written before Inconsistent is stable"},
    {"interval_lock_skipped_in_resync", "D6 R2 R3", "resync chunks do not lock out guest writes"},
    {"overlap_not_serialised", "D5 W4", "overlapping operations run together"},
    {"flush_ignores_peer", "D14 D1", "a flush is answered when the own disk has flushed"},
    {"epoch_check_skipped", "D13 L2", "requests of an older epoch are carried out"},
    {"epoch_refused_not_durable", "C2", "an epoch's refusal is answered before it is stable"},
    {"outlived_copy_trusted", "F4 H38",
     "a replica restarted in the same boot resyncs by what its disk shows, flushed or forgotten"},
    {"network_before_failed_committed", "D2 K2",
     "an owner whose disk failed goes on over the network before that is committed"},
    {"shown_metadata_trusted", "D10 D17 F4",
     "metadata that a former process wrote is taken for stable because the device shows it"},
    {"lease_not_checked", "C2 L2", "requests are served after the lease has ended"},
});

}  // namespace gemel::replication
