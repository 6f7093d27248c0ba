#include "daemons/guard/process_control.hpp"

#include <filesystem>
#include <fstream>
#include <signal.h>
#include <sstream>
#include <sys/syscall.h>
#include <unistd.h>

namespace gemel::guard {
namespace {

struct Stat {
    char state = 'X';
    std::uint64_t start_time = 0;
};

// The command name (field 2) may hold spaces and brackets: fields are counted from the last ')'.
std::optional<Stat> read_stat(std::int32_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string text;
    if (!file || !std::getline(file, text)) return std::nullopt;
    const auto end = text.rfind(')');
    if (end == std::string::npos) return std::nullopt;
    std::istringstream fields(text.substr(end + 1));
    Stat stat;
    fields >> stat.state;  // field 3
    std::string skipped;
    for (int field = 4; field < 22; ++field) fields >> skipped;
    fields >> stat.start_time;
    if (!fields) return std::nullopt;
    return stat;
}

}  // namespace

std::optional<ProcessId> identify(std::int32_t pid) {
    const auto stat = read_stat(pid);
    if (!stat) return std::nullopt;
    return ProcessId{pid, stat->start_time};
}

std::optional<ProcessId> find_qemu(const GuestId& guest) {
    const std::string uuid = guest.to_string();
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
        const std::string name = entry.path().filename().string();
        if (name.find_first_not_of("0123456789") != std::string::npos) continue;
        std::ifstream file(entry.path() / "cmdline", std::ios::binary);
        std::string argument;
        bool qemu = false;
        bool after_uuid = false;
        for (int i = 0; std::getline(file, argument, '\0'); ++i) {
            if (i == 0) qemu = argument.find("qemu") != std::string::npos;
            if (!qemu) break;
            if (after_uuid && argument == uuid) return identify(std::stoi(name));
            after_uuid = argument == "-uuid";
        }
    }
    return std::nullopt;
}

ha::SeenDomain look(const ProcessId& process) {
    const auto stat = read_stat(process.pid);
    if (!stat || stat->start_time != process.start_time) return ha::SeenDomain::gone;
    if (stat->state == 'Z' || stat->state == 'X') return ha::SeenDomain::gone;
    return stat->state == 'T' || stat->state == 't' ? ha::SeenDomain::paused : ha::SeenDomain::running;
}

bool send_signal(const ProcessId& process, int signal) {
    // The pidfd pins the process: between the check of its start time and the signal it cannot become another
    // one.
    const auto fd = static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0));
    if (fd < 0) return false;
    const bool same = identify(process.pid) == process;
    const bool sent = same && ::syscall(SYS_pidfd_send_signal, fd, signal, nullptr, 0) == 0;
    ::close(fd);
    return sent;
}

}  // namespace gemel::guard
