// Control sockets between the daemons of one node (docs/formats/control.md): newline-delimited JSON over a
// unix stream socket; requests with answers, and notifications. Each ControlServer and ControlClient has one
// thread of its own; every callback runs on that thread and must not block; request(), notify() and Reply may
// be called from any thread. Bounds: a line of at most kMaxLineBytes, kMaxConnections clients,
// kMaxQueuedBytes waiting for a client that does not read (then it is disconnected), kMaxOpenRequests
// unanswered requests of a client. Not in it: what the messages mean.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::ipc {

inline constexpr int kControlVersion = 1;
inline constexpr std::size_t kMaxLineBytes = 1U << 20;
inline constexpr std::size_t kMaxConnections = 64;
inline constexpr std::size_t kMaxQueuedBytes = 16U << 20;
inline constexpr std::size_t kMaxOpenRequests = 4096;

using ConnectionId = std::uint64_t;

// The answer to one request: exactly one of the two, once, from any thread, now or later. Answers to a
// connection that is gone vanish.
class Reply {
  public:
    using Sink = std::function<void(std::string line)>;
    Reply(std::uint64_t request, Sink sink);
    void ok(const nlohmann::json& result) const;
    void error(const Error& error) const;

  private:
    std::uint64_t request_;
    Sink sink_;
};

struct ServerHandlers {
    // `role` is what the client's hello says
    std::function<void(ConnectionId, const std::string& role)> connected;
    std::function<void(ConnectionId)> disconnected;
    // the request's object, without "id"; "do" is a text
    std::function<void(ConnectionId, const nlohmann::json& request, Reply reply)> request;
};

class ControlServer {
  public:
    // Removes a socket left by a dead process, listens with mode 0600. The handlers may run before this
    // returns.
    static Result<std::unique_ptr<ControlServer>> listen(const std::string& path, const std::string& role,
                                                         ServerHandlers handlers);
    ~ControlServer();
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

    void notify(const nlohmann::json& event);  // to every client that said hello

  private:
    class Loop;
    explicit ControlServer(std::unique_ptr<Loop> loop);
    std::unique_ptr<Loop> loop_;
};

struct ClientHandlers {
    std::function<void()> connected;     // after the server's hello
    std::function<void()> disconnected;  // every open request was answered with ErrorCode::unavailable before
    std::function<void(const nlohmann::json& event)> event;
};

// Connects, and connects again (after 100 ms to 1 s) for as long as it lives.
class ControlClient {
  public:
    ControlClient(std::string path, std::string role, ClientHandlers handlers);
    ~ControlClient();
    ControlClient(const ControlClient&) = delete;
    ControlClient& operator=(const ControlClient&) = delete;

    using Answer = std::function<void(Result<nlohmann::json>)>;
    // `request` has "do" and no "id". The answer comes once: the result, the server's error, timed_out or
    // unavailable.
    void request(nlohmann::json request, Duration timeout, Answer answer);
    bool connected() const;

  private:
    class Loop;
    std::unique_ptr<Loop> loop_;
};

}  // namespace gemel::ipc
