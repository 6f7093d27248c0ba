// SingleGuestChecker: a guest runs once (promise C1), and only while its host has the right to run it (C1,
// C2). Judges what the hosts show at one instant: whose virtual CPUs run, and until when the lease went. It
// knows nothing of who decided what. Not in it: whether a lie of a fence device excuses it, which its caller
// counts.
#pragma once

#include <cstdint>
#include <string>

#include "base/instant.hpp"

namespace gemel::sim {

class SingleGuestChecker {
  public:
    // How long after its lease's end a guest may go on: the guard's stated time.
    static constexpr Duration kStated = seconds(3);

    // How long both domains of a guest that moved may run, once the destination knows: its lease does not
    // come for as long as the guard waits, then it is paused.
    static constexpr Duration kTwice = seconds(6);

    struct Running {  // a guest's virtual CPUs on one host
        std::uint32_t node = 0;
        Instant local{0};  // that host's clock
        Instant lease_until{0};
        Instant now{0};         // true time
        Instant resumed_at{0};  // the host stood still until then, and its guard with it
    };

    // empty when it was right; otherwise what is wrong
    static std::string runs(bool here, bool there);
    // both after a move, one of them without a disk
    static std::string runs_for_long(Duration twice);
    static std::string starts(std::uint32_t node, bool other_runs);
    static std::string right(const Running& running);
};

}  // namespace gemel::sim
