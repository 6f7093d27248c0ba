// ClientBinding: which process owns the front-end session of one lease epoch. The first one that connects
// does, named by pid and start time, so that a pid used again is another process. Kept in a file beside the
// socket (on tmpfs), so that it survives a restart of gemel-blockd and not a reboot. Promise: within one
// epoch at most one process is served; with `successors` (exports for tools) another may follow once the
// former is dead, never at the same time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>

#include "base/error.hpp"

namespace gemel::front {

struct ProcessId {
    pid_t pid = 0;
    std::uint64_t start_time = 0;  // field 22 of /proc/PID/stat
    auto operator<=>(const ProcessId&) const = default;
};

// none: no such process (any more)
std::optional<ProcessId> process_of(pid_t pid);
// who is at the other end of a connected unix socket
Result<ProcessId> peer_process(int fd);

class ClientBinding {
  public:
    // file: the socket's path plus ".client"
    ClientBinding(std::string file, bool successors);

    // ok: this process may be served (and now owns the session); permission_denied: another one does
    // in_use: the owner has connections now
    Status admit(const ProcessId& process, bool in_use);
    pid_t pid() const { return owner_ ? owner_->pid : 0; }
    void remove_file() const;

  private:
    Status write() const;

    std::string file_;
    bool successors_;
    std::optional<ProcessId> owner_;
};

}  // namespace gemel::front
