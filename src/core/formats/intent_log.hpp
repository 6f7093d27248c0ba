// Intent log: a ring of 16 transactions; each is one metadata page that carries the *whole* set of active
// extents (4 MiB each) at that moment. Transaction n lies in slot n mod 16 and is stable before n + 1 is
// written, so:
//   * the newest whole transaction is the truth;
//   * slot (newest + 1) may be torn: that transaction never completed, nothing relied on it (M1);
//   * if that slot is damaged instead, a completed transaction may have been lost: the set is unknown, and
//   the caller
//     must take every block for dirty.
// A full set in every transaction needs no replay and no rotating context, at the price of a bound: 952
// extents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/metadata_page.hpp"

namespace gemel::formats {

// 3840 bytes of payload less 16 of header and 16 kept for later, four bytes an extent
inline constexpr std::uint32_t kMaxIntentExtents = 952;

struct IntentTransaction {
    std::uint64_t sequence = 0;
    std::vector<std::uint32_t> extents;  // active extents, in any order, none twice
};

void encode_intent(std::uint64_t sequence, std::span<const std::uint32_t> extents, const ReplicaId& replica,
                   PageBytes out);

struct IntentLogContents {
    bool known = false;  // false: unknown, take every block for dirty
    IntentTransaction newest;
};
// `ring`: kIntentLogSlots pages as read from kIntentLogOffset; `extents`: number of extents of the volume.
IntentLogContents decode_intent_log(std::span<const std::byte> ring, const ReplicaId& replica,
                                    std::uint64_t extents);

}  // namespace gemel::formats
