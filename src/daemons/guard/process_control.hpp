// Stops, continues and kills one QEMU process, and says whether it worked. A process is (pid, start time), so
// that a reused pid is never touched. SIGSTOP stops all vCPU threads and everything the process would send;
// /proc shows whether it did.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/ha/guard.hpp"

namespace gemel::guard {

struct ProcessId {
    std::int32_t pid = 0;
    std::uint64_t start_time = 0;  // clock ticks since boot, field 22 of /proc/PID/stat
    bool operator==(const ProcessId&) const = default;
};

// What /proc says now. A zombie counts as gone: it runs nothing any more.
ha::SeenDomain look(const ProcessId& process);
// The identity of a running pid; empty when there is none.
std::optional<ProcessId> identify(std::int32_t pid);
// The QEMU that was started with `-uuid GUEST`; empty when there is none. Reads the command line of every
// process.
std::optional<ProcessId> find_qemu(const GuestId& guest);
// False when the process is not that one any more, or the kernel refused. Success means sent, not done:
// look() says that.
bool send_signal(const ProcessId& process, int signal);

}  // namespace gemel::guard
