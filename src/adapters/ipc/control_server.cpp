#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "adapters/ipc/control_socket.hpp"
#include "adapters/ipc/line_socket.hpp"

namespace gemel::ipc {

using nlohmann::json;

Reply::Reply(std::uint64_t request, Sink sink) : request_(request), sink_(std::move(sink)) {}
void Reply::ok(const json& result) const {
    sink_(json{{"id", request_}, {"ok", result}}.dump());
}
void Reply::error(const Error& error) const {
    sink_(json{{"id", request_}, {"error", {{"code", to_string(error.code)}, {"message", error.message}}}}
              .dump());
}

class ControlServer::Loop {
  public:
    Loop(int listener, std::string path, std::string role, ServerHandlers handlers)
        : listener_(listener),
          path_(std::move(path)),
          role_(std::move(role)),
          handlers_(std::move(handlers)),
          mail_(std::make_shared<Mail>()) {
        thread_ = std::thread([this] { run(); });
    }
    ~Loop() {
        stop_ = true;
        mail_->waker.wake();
        thread_.join();
        ::close(listener_);
        ::unlink(path_.c_str());
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    void post(ConnectionId to, std::string line) { deliver(mail_, to, std::move(line)); }

  private:
    struct Client {
        explicit Client(int fd) : socket(fd) {}
        LineSocket socket;
        bool greeted = false;
    };
    // Lines written by other threads; outlives the loop for as long as somebody holds a Reply. To 0: to
    // everyone.
    struct Mail {
        std::mutex mutex;
        std::vector<std::pair<ConnectionId, std::string>> lines;
        Waker waker;
    };

    static void deliver(const std::shared_ptr<Mail>& mail, ConnectionId to, std::string line) {
        {
            const std::scoped_lock lock(mail->mutex);
            mail->lines.emplace_back(to, std::move(line));
        }
        mail->waker.wake();
    }

    void run() {
        while (!stop_) {
            std::vector<pollfd> polls{{listener_, POLLIN, 0}, {mail_->waker.fd(), POLLIN, 0}};
            std::vector<ConnectionId> order;
            for (auto& [id, client] : clients_) {
                polls.push_back({client.socket.fd(),
                                 static_cast<short>(POLLIN | (client.socket.wants_write() ? POLLOUT : 0)),
                                 0});
                order.push_back(id);
            }
            ::poll(polls.data(), polls.size(), -1);
            if (polls[1].revents != 0) send_mail();
            for (std::size_t i = 0; i < order.size(); ++i) {
                if (polls[i + 2].revents != 0) serve(order[i]);
            }
            if (polls[0].revents != 0) accept_one();
        }
        while (!clients_.empty()) close(clients_.begin()->first);
    }

    void accept_one() {
        const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        if (clients_.size() >= kMaxConnections) {
            ::close(fd);
            return;
        }
        const ConnectionId id = next_id_++;
        Client& client = clients_.emplace(id, Client(fd)).first->second;
        if (!client.socket.queue(hello_line(role_))) close(id);
    }

    void serve(ConnectionId id) {
        const auto found = clients_.find(id);
        if (found == clients_.end()) return;
        std::vector<std::string> lines;
        const bool alive = found->second.socket.flush() && found->second.socket.read_lines(lines);
        for (const std::string& line : lines) {
            if (!clients_.contains(id)) return;
            if (!on_line(id, clients_.at(id), line)) {
                close(id);
                return;
            }
        }
        if (!alive) close(id);
    }

    bool on_line(ConnectionId id, Client& client, const std::string& line) {
        if (!client.greeted) {
            const auto role = check_hello(line);
            if (!role) {
                client.socket.queue(json{
                    {"error", {{"code", to_string(role.error().code)}, {"message", role.error().message}}}}
                                        .dump());
                return false;
            }
            client.greeted = true;
            if (handlers_.connected) handlers_.connected(id, *role);
            return true;
        }
        json request = json::parse(line, nullptr, false);
        if (!request.is_object() || !request.contains("id") || !request["id"].is_number_unsigned())
            return false;
        const Reply reply(request["id"].get<std::uint64_t>(),
                          [mail = mail_, id](std::string answer) { deliver(mail, id, std::move(answer)); });
        if (!request.contains("do") || !request["do"].is_string()) {
            reply.error({ErrorCode::invalid_argument,
                         "expected \"do\": what is asked for (docs/formats/control.md)"});
            return true;
        }
        request.erase("id");
        handlers_.request(id, request, reply);
        return true;
    }

    void send_mail() {
        mail_->waker.drain();
        std::vector<std::pair<ConnectionId, std::string>> lines;
        {
            const std::scoped_lock lock(mail_->mutex);
            lines.swap(mail_->lines);
        }
        std::vector<ConnectionId> broken;
        for (auto& [to, line] : lines) {
            for (auto& [id, client] : clients_) {
                if (!client.greeted || (to != 0 && to != id)) continue;
                if (!client.socket.queue(line)) broken.push_back(id);
            }
        }
        for (const ConnectionId id : broken) close(id);
    }

    void close(ConnectionId id) {
        const auto found = clients_.find(id);
        if (found == clients_.end()) return;
        const bool greeted = found->second.greeted;
        clients_.erase(found);
        if (greeted && handlers_.disconnected) handlers_.disconnected(id);
    }

    int listener_;
    std::string path_;
    std::string role_;
    ServerHandlers handlers_;
    std::shared_ptr<Mail> mail_;
    std::map<ConnectionId, Client> clients_;
    ConnectionId next_id_ = 1;
    std::atomic<bool> stop_ = false;
    std::thread thread_;
};

ControlServer::ControlServer(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
ControlServer::~ControlServer() = default;

Result<std::unique_ptr<ControlServer>> ControlServer::listen(const std::string& path, const std::string& role,
                                                             ServerHandlers handlers) {
    sockaddr_un address{};
    const int fd = unix_socket(path, address);
    if (fd < 0)
        return fail(ErrorCode::invalid_argument,
                    "cannot make a socket at " + path + ": " + std::strerror(errno));
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(fd, generic, sizeof address) == 0) {
        ::close(fd);
        return fail(ErrorCode::already_exists, path + " is served by a running process: stop it first");
    }
    ::unlink(path.c_str());
    const mode_t before = ::umask(0177);
    const bool bound = ::bind(fd, generic, sizeof address) == 0 && ::listen(fd, 64) == 0;
    const int error = errno;
    ::umask(before);
    if (!bound) {
        ::close(fd);
        return fail(ErrorCode::io_error, "cannot listen on " + path + ": " + std::strerror(error));
    }
    return std::unique_ptr<ControlServer>(
        new ControlServer(std::make_unique<Loop>(fd, path, role, std::move(handlers))));
}

void ControlServer::notify(const json& event) {
    loop_->post(0, event.dump());
}

}  // namespace gemel::ipc
