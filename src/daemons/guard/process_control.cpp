#include "daemons/guard/process_control.hpp"

#include <array>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <signal.h>
#include <string>
#include <string_view>
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
    // Four times a second for every guest, also when the machine is short of everything: no allocation.
    std::array<char, 32> path{};
    std::snprintf(path.data(), path.size(), "/proc/%d/stat", pid);
    const int fd = ::open(path.data(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return std::nullopt;
    std::array<char, 1024> buffer{};
    const auto length = ::read(fd, buffer.data(), buffer.size());
    ::close(fd);
    if (length <= 0) return std::nullopt;
    std::string_view text(buffer.data(), static_cast<std::size_t>(length));
    const auto end = text.rfind(')');
    if (end == std::string_view::npos) return std::nullopt;
    text.remove_prefix(end + 1);
    Stat stat;
    for (int field = 3; field <= 22; ++field) {
        const auto begin = text.find_first_not_of(' ');
        if (begin == std::string_view::npos) return std::nullopt;
        text.remove_prefix(begin);
        const auto word = text.substr(0, text.find(' '));
        if (field == 3) stat.state = word.front();
        if (field == 22 &&
            std::from_chars(word.data(), word.data() + word.size(), stat.start_time).ec != std::errc{})
            return std::nullopt;
        text.remove_prefix(word.size());
    }
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
