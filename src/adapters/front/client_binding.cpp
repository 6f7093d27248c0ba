#include "adapters/front/client_binding.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace gemel::front {

std::optional<ProcessId> process_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string line;
    if (!std::getline(file, line)) return std::nullopt;
    // the second field is a name in parentheses that may hold anything
    const auto end = line.rfind(')');
    if (end == std::string::npos) return std::nullopt;
    std::istringstream fields(line.substr(end + 1));
    std::string skipped;
    for (int field = 3; field < 22; ++field) fields >> skipped;
    ProcessId process{pid, 0};
    if (!(fields >> process.start_time)) return std::nullopt;
    return process;
}

Result<ProcessId> peer_process(int fd) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        return fail(ErrorCode::io_error, fmt::format("who connects is not known: {}", std::strerror(errno)));
    }
    const auto process = process_of(credentials.pid);
    if (!process)
        return fail(ErrorCode::unavailable, fmt::format("process {} is gone already", credentials.pid));
    return *process;
}

ClientBinding::ClientBinding(std::string file, bool successors)
    : file_(std::move(file)), successors_(successors) {
    std::ifstream stored(file_);
    ProcessId owner;
    if (stored >> owner.pid >> owner.start_time) owner_ = owner;
}

Status ClientBinding::admit(const ProcessId& process, bool in_use) {
    if (owner_ == process) return {};
    if (owner_) {
        const bool alive = process_of(owner_->pid) == owner_;
        if (!successors_ || (alive && in_use)) {
            return fail(
                ErrorCode::permission_denied,
                fmt::format("this volume's front end belongs to process {}{}; process {} is refused{}",
                            owner_->pid, alive ? "" : " (which has ended)", process.pid,
                            alive ? "" : ": a new start gets a new lease epoch and socket"));
        }
    }
    owner_ = process;
    return write();
}

Status ClientBinding::write() const {
    const std::string fresh = file_ + ".new";
    std::ofstream file(fresh, std::ios::trunc);
    file << owner_->pid << ' ' << owner_->start_time << '\n';
    file.close();
    if (!file || ::rename(fresh.c_str(), file_.c_str()) != 0) {
        return fail(ErrorCode::io_error, fmt::format("cannot write {}: {}", file_, std::strerror(errno)));
    }
    return {};
}

void ClientBinding::remove_file() const {
    ::unlink(file_.c_str());
}

}  // namespace gemel::front
