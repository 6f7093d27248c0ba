#include "adapters/ipc/line_socket.hpp"

#include <array>
#include <cerrno>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "adapters/system/unix_address.hpp"
#include "base/invariant.hpp"

namespace gemel::ipc {

LineSocket::~LineSocket() {
    if (fd_ >= 0) ::close(fd_);
}

LineSocket::LineSocket(LineSocket&& other) noexcept
    : fd_(other.fd_), input_(std::move(other.input_)), output_(std::move(other.output_)) {
    other.fd_ = -1;
}

bool LineSocket::read_lines(std::vector<std::string>& lines) {
    std::array<char, 16384> chunk;
    for (;;) {
        const ssize_t got = ::recv(fd_, chunk.data(), chunk.size(), MSG_DONTWAIT);
        if (got == 0) return false;
        if (got < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        input_.append(chunk.data(), static_cast<std::size_t>(got));
        for (std::size_t end = input_.find('\n'); end != std::string::npos; end = input_.find('\n')) {
            lines.push_back(input_.substr(0, end));
            input_.erase(0, end + 1);
        }
        if (input_.size() > kMaxLineBytes) return false;
    }
}

bool LineSocket::queue(std::string line) {
    if (output_.size() + line.size() > kMaxQueuedBytes) return false;
    output_ += line;
    output_ += '\n';
    return flush();
}

bool LineSocket::flush() {
    while (!output_.empty()) {
        const ssize_t sent = ::send(fd_, output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        output_.erase(0, static_cast<std::size_t>(sent));
    }
    return true;
}

Waker::Waker() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    INVARIANT(fd_ >= 0, "the kernel gives an eventfd");
}
Waker::~Waker() {
    ::close(fd_);
}

void Waker::wake() const {
    const std::uint64_t one = 1;
    // A full counter wakes just as well, so a failed write needs no answer.
    if (::write(fd_, &one, sizeof one) < 0) return;
}

void Waker::drain() const {
    std::uint64_t count = 0;
    if (::read(fd_, &count, sizeof count) < 0) return;
}

std::string hello_line(const std::string& role) {
    return nlohmann::json{{"hello", "gemel-control"}, {"version", kControlVersion}, {"role", role}}.dump();
}

Result<std::string> check_hello(const std::string& line) {
    const auto hello = nlohmann::json::parse(line, nullptr, false);
    if (!hello.is_object() || hello.value("hello", "") != "gemel-control") {
        return fail(ErrorCode::invalid_argument, "expected a hello line of gemel-control");
    }
    if (!hello.contains("version") || !hello["version"].is_number_integer() ||
        hello["version"] != kControlVersion) {
        return fail(ErrorCode::unsupported,
                    "control version " + std::to_string(kControlVersion) +
                        " is spoken here: restart all Gemel daemons of this node after an upgrade");
    }
    return hello.value("role", std::string("tool"));
}

int unix_socket(const std::string& path, sockaddr_un& address) {
    if (!unix_address(path, address)) return -1;
    return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

}  // namespace gemel::ipc
