#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "adapters/ipc/control_socket.hpp"
#include "adapters/ipc/line_socket.hpp"
#include "adapters/system/boot_clock.hpp"

namespace gemel::ipc {

using nlohmann::json;

namespace {

constexpr Duration kFirstRetry = milliseconds(100);
constexpr Duration kLongestRetry = seconds(1);

ErrorCode code_from(const std::string& text) {
    for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
        if (to_string(static_cast<ErrorCode>(i)) == text) return static_cast<ErrorCode>(i);
    }
    return ErrorCode::internal;
}

}  // namespace

class ControlClient::Loop {
  public:
    Loop(std::string path, std::string role, ClientHandlers handlers)
        : path_(std::move(path)), role_(std::move(role)), handlers_(std::move(handlers)) {
        thread_ = std::thread([this] { run(); });
    }
    ~Loop() {
        stop_ = true;
        waker_.wake();
        thread_.join();
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    void post(json request, Duration timeout, Answer answer) {
        {
            const std::scoped_lock lock(mutex_);
            posted_.push_back({std::move(request), boot_now() + timeout, std::move(answer)});
        }
        waker_.wake();
    }
    bool connected() const { return ready_; }

  private:
    struct Posted {
        json request;
        Instant deadline;
        Answer answer;
    };
    struct Open {
        Instant deadline;
        Answer answer;
    };

    void run() {
        while (!stop_) {
            if (!socket_ && boot_now() >= retry_at_) connect();
            std::vector<pollfd> polls{{waker_.fd(), POLLIN, 0}};
            if (socket_)
                polls.push_back(
                    {socket_->fd(), static_cast<short>(POLLIN | (socket_->wants_write() ? POLLOUT : 0)), 0});
            ::poll(polls.data(), polls.size(), wait_ms());
            if (polls[0].revents != 0) waker_.drain();
            take_posted();
            if (socket_ && polls.size() > 1 && polls[1].revents != 0) serve();
            expire();
        }
        disconnect();
        take_posted();
    }

    int wait_ms() {
        const Instant now = boot_now();
        Instant next = socket_ ? Instant::never() : retry_at_;
        for (const auto& [id, open] : open_) next = std::min(next, open.deadline);
        if (next == Instant::never()) return -1;
        return static_cast<int>(std::max<std::int64_t>(0, (next - now).milliseconds() + 1));
    }

    void connect() {
        sockaddr_un address{};
        const int fd = unix_socket(path_, address);
        retry_at_ = boot_now() + retry_;
        retry_ = std::min(retry_ * 2, kLongestRetry);
        if (fd < 0) return;
        if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            ::close(fd);
            return;
        }
        socket_.emplace(fd);
        if (!socket_->queue(hello_line(role_))) disconnect();
    }

    void serve() {
        std::vector<std::string> lines;
        const bool alive = socket_->flush() && socket_->read_lines(lines);
        for (const std::string& line : lines) {
            if (!on_line(line)) {
                disconnect();
                return;
            }
        }
        if (!alive) disconnect();
    }

    bool on_line(const std::string& line) {
        if (!ready_) {
            if (!check_hello(line)) return false;
            ready_ = true;
            retry_ = kFirstRetry;
            if (handlers_.connected) handlers_.connected();
            return true;
        }
        json message = json::parse(line, nullptr, false);
        if (!message.is_object()) return false;
        if (!message.contains("id")) {
            if (message.contains("event") && handlers_.event) handlers_.event(message);
            return message.contains("event");
        }
        if (!message["id"].is_number_unsigned()) return false;
        const auto found = open_.find(message["id"].get<std::uint64_t>());
        if (found == open_.end()) return true;  // its time was over
        const Answer answer = std::move(found->second.answer);
        open_.erase(found);
        if (message.contains("ok")) {
            answer(std::move(message["ok"]));
        } else {
            const json error = message.value("error", json::object());
            answer(fail(code_from(error.value("code", "internal")),
                        error.value("message", "no reason was given")));
        }
        return true;
    }

    void take_posted() {
        std::vector<Posted> posted;
        {
            const std::scoped_lock lock(mutex_);
            posted.swap(posted_);
        }
        for (Posted& one : posted) {
            if (!ready_ || open_.size() >= kMaxOpenRequests) {
                one.answer(
                    fail(ErrorCode::unavailable, "nothing answers at " + path_ + ": is the daemon running?"));
                continue;
            }
            const std::uint64_t id = next_id_++;
            one.request["id"] = id;
            open_.emplace(id, Open{one.deadline, std::move(one.answer)});
            if (!socket_->queue(one.request.dump())) disconnect();
        }
    }

    void expire() {
        const Instant now = boot_now();
        for (auto it = open_.begin(); it != open_.end();) {
            if (it->second.deadline > now) {
                ++it;
                continue;
            }
            const Answer answer = std::move(it->second.answer);
            it = open_.erase(it);
            answer(fail(ErrorCode::timed_out, "no answer in time from " + path_));
        }
    }

    void disconnect() {
        socket_.reset();
        const bool was_ready = ready_;
        ready_ = false;
        std::map<std::uint64_t, Open> open;
        open.swap(open_);
        for (auto& [id, one] : open)
            one.answer(fail(ErrorCode::unavailable, "the connection to " + path_ + " was lost"));
        if (was_ready && handlers_.disconnected) handlers_.disconnected();
    }

    std::string path_;
    std::string role_;
    ClientHandlers handlers_;
    Waker waker_;
    std::mutex mutex_;
    std::vector<Posted> posted_;
    std::optional<LineSocket> socket_;
    std::atomic<bool> ready_ = false;
    std::map<std::uint64_t, Open> open_;
    std::uint64_t next_id_ = 1;
    Duration retry_ = kFirstRetry;
    Instant retry_at_;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

ControlClient::ControlClient(std::string path, std::string role, ClientHandlers handlers)
    : loop_(std::make_unique<Loop>(std::move(path), std::move(role), std::move(handlers))) {}
ControlClient::~ControlClient() = default;

void ControlClient::request(json request, Duration timeout, Answer answer) {
    loop_->post(std::move(request), timeout, std::move(answer));
}
bool ControlClient::connected() const {
    return loop_->connected();
}

}  // namespace gemel::ipc
