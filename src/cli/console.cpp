#include "cli/console.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/system/owned_fd.hpp"
#include "adapters/system/unix_address.hpp"
#include "cli/terminal.hpp"

namespace gemel::cli {

namespace {

constexpr char kDetach = 0x1d;  // Ctrl-]
constexpr int kLookMs = 200;

// The user's terminal in raw mode for as long as this lives; nothing where the input is none.
class RawTerminal {
  public:
    RawTerminal() : was_terminal_(tcgetattr(STDIN_FILENO, &before_) == 0) {
        if (!was_terminal_) return;
        termios raw = before_;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal() {
        if (was_terminal_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    }

  private:
    termios before_{};
    bool was_terminal_;
};

Result<int> open_line(const std::string& kind, const std::string& path) {
    const auto refuse = [&](const char* what) {
        return fail(
            ErrorCode::unavailable,
            fmt::format("the guest's serial line {} could not be {} ({}): look whether it still runs with "
                        "'gemel vm list'",
                        path, what, std::strerror(errno)));
    };
    if (kind == "pty") {
        const int fd = open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd < 0) return refuse("opened");
        // two consoles on one line would each see half of the output
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            close(fd);
            return fail(ErrorCode::failed_precondition,
                        "another console is attached to this guest: detach it there with Ctrl-] first");
        }
        termios raw{};
        if (tcgetattr(fd, &raw) == 0) {
            cfmakeraw(&raw);
            tcsetattr(fd, TCSANOW, &raw);
        }
        return fd;
    }
    sockaddr_un address;
    if (!unix_address(path, address)) return refuse("opened");
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return refuse("opened");
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        const int cause = errno;
        close(fd);
        errno = cause;
        return refuse("connected");
    }
    return fd;
}

bool write_all(int fd, const char* bytes, std::size_t size) {
    while (size > 0) {
        const ssize_t written = write(fd, bytes, size);
        if (written < 0 && errno == EINTR && !interrupted()) continue;
        if (written <= 0) return false;
        bytes += written;
        size -= static_cast<std::size_t>(written);
    }
    return true;
}

enum class Pumped { more, detached, line_closed, input_ended };

Pumped pump_input(int line) {
    std::array<char, 1024> buffer{};
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) return got < 0 && errno == EINTR ? Pumped::more : Pumped::input_ended;
    const auto size = static_cast<std::size_t>(got);
    const void* detach = std::memchr(buffer.data(), kDetach, size);
    const std::size_t before =
        detach == nullptr ? size : static_cast<std::size_t>(static_cast<const char*>(detach) - buffer.data());
    if (!write_all(line, buffer.data(), before)) return Pumped::line_closed;
    return detach == nullptr ? Pumped::more : Pumped::detached;
}

Pumped pump_output(int line) {
    std::array<char, 4096> buffer{};
    const ssize_t got = read(line, buffer.data(), buffer.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return Pumped::more;
    if (got <= 0) return Pumped::line_closed;
    return write_all(STDOUT_FILENO, buffer.data(), static_cast<std::size_t>(got)) ? Pumped::more
                                                                                  : Pumped::detached;
}

}  // namespace

Result<ConsoleEnd> attach_console(const std::string& kind, const std::string& path,
                                  const std::function<void()>& attached) {
    if (kind != "pty" && kind != "unix") {
        return fail(
            ErrorCode::unsupported,
            fmt::format("a console of kind '{}' is not known to this gemel: install the same version as "
                        "gemel-clusterd's",
                        kind));
    }
    auto opened = open_line(kind, path);
    if (!opened) return tl::unexpected<Error>(opened.error());
    const OwnedFd line(*opened);
    const RawTerminal raw;
    attached();
    std::array<pollfd, 2> waits{{{STDIN_FILENO, POLLIN, 0}, {line.get(), POLLIN, 0}}};
    while (!interrupted()) {
        if (poll(waits.data(), waits.size(), kLookMs) <= 0) continue;
        if (waits[1].revents != 0) {
            const Pumped out = pump_output(line.get());
            if (out != Pumped::more) return ConsoleEnd{out == Pumped::line_closed};
        }
        if (waits[0].revents != 0) {
            const Pumped in = pump_input(line.get());
            // where the input is a file that ended, the guest's output is still wanted
            if (in == Pumped::input_ended) waits[0].fd = -1;
            if (in == Pumped::detached || in == Pumped::line_closed)
                return ConsoleEnd{in == Pumped::line_closed};
        }
    }
    return ConsoleEnd{};
}

}  // namespace gemel::cli
