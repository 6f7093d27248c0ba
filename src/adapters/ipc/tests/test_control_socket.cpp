#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "adapters/ipc/control_socket.hpp"

namespace gemel::ipc {
namespace {

using nlohmann::json;

// Waits for a condition with a deadline.
class Board {
  public:
    void set(const std::string& key, const json& value) {
        const std::scoped_lock lock(mutex_);
        values_[key] = value;
        changed_.notify_all();
    }
    bool wait(const std::string& key, const json& value) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(10),
                                 [&] { return values_.contains(key) && values_[key] == value; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    json values_ = json::object();
};

class ControlSocket : public ::testing::Test {
  protected:
    ControlSocket() {
        char pattern[] = "/tmp/gemel-ipc-XXXXXX";
        directory_ = ::mkdtemp(pattern);
        path_ = directory_ + "/control.sock";
    }
    ~ControlSocket() override { std::filesystem::remove_all(directory_); }
    ServerHandlers echo() {
        ServerHandlers handlers;
        handlers.connected = [this](ConnectionId, const std::string& role) { board_.set("role", role); };
        handlers.disconnected = [this](ConnectionId) { board_.set("gone", true); };
        handlers.request = [](ConnectionId, const json& request, Reply reply) {
            if (request["do"] == "echo") reply.ok(request["value"]);
            if (request["do"] == "fail") reply.error({ErrorCode::out_of_space, "full"});
        };
        return handlers;
    }
    std::string directory_;
    std::string path_;
    Board board_;
};

TEST_F(ControlSocket, RequestsErrorsTimeoutsAndEvents) {
    auto server = ControlServer::listen(path_, "blockd", echo());
    ASSERT_TRUE(server) << server.error().message;
    ClientHandlers handlers;
    handlers.connected = [this] { board_.set("connected", true); };
    handlers.event = [this](const json& event) { board_.set("event", event["event"]); };
    ControlClient client(path_, "clusterd", handlers);
    ASSERT_TRUE(board_.wait("connected", true));
    EXPECT_TRUE(board_.wait("role", "clusterd"));
    client.request({{"do", "echo"}, {"value", 42}}, seconds(5),
                   [this](Result<json> r) { board_.set("echo", r ? *r : json("error")); });
    EXPECT_TRUE(board_.wait("echo", 42));
    client.request({{"do", "fail"}}, seconds(5),
                   [this](Result<json> r) { board_.set("fail", r ? "ok" : r.error().message); });
    EXPECT_TRUE(board_.wait("fail", "full"));
    client.request({{"do", "silence"}}, milliseconds(50), [this](Result<json> r) {
        board_.set("silence", !r && r.error().code == ErrorCode::timed_out);
    });
    EXPECT_TRUE(board_.wait("silence", true));
    (*server)->notify({{"event", "view"}});
    EXPECT_TRUE(board_.wait("event", "view"));
}

TEST_F(ControlSocket, AClientSurvivesTheServersRestart) {
    auto server = ControlServer::listen(path_, "blockd", echo());
    ASSERT_TRUE(server);
    int times = 0;
    ClientHandlers handlers;
    handlers.connected = [&] { board_.set("connected", ++times); };
    handlers.disconnected = [this] { board_.set("disconnected", true); };
    ControlClient client(path_, "clusterd", handlers);
    ASSERT_TRUE(board_.wait("connected", 1));
    client.request({{"do", "silence"}}, seconds(60), [this](Result<json> r) {
        board_.set("open", !r && r.error().code == ErrorCode::unavailable);
    });
    // the answer to a second request shows that the first has reached the server
    client.request({{"do", "echo"}, {"value", 1}}, seconds(5),
                   [this](Result<json> r) { board_.set("echo", r ? *r : json("error")); });
    ASSERT_TRUE(board_.wait("echo", 1));
    server->reset();
    EXPECT_TRUE(board_.wait("open", true));
    EXPECT_TRUE(board_.wait("disconnected", true));
    server = ControlServer::listen(path_, "blockd", echo());
    ASSERT_TRUE(server);
    EXPECT_TRUE(board_.wait("connected", 2));
}

TEST_F(ControlSocket, ASecondServerIsRefusedAndADeadOnesSocketIsReplaced) {
    auto server = ControlServer::listen(path_, "blockd", echo());
    ASSERT_TRUE(server);
    const auto second = ControlServer::listen(path_, "blockd", echo());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::already_exists);
    server->reset();
    const int leftover = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(leftover, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(leftover);
    EXPECT_TRUE(ControlServer::listen(path_, "blockd", echo()));
}

TEST_F(ControlSocket, AnotherVersionIsAnsweredAndClosed) {
    auto server = ControlServer::listen(path_, "blockd", echo());
    ASSERT_TRUE(server);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string hello = "{\"hello\":\"gemel-control\",\"version\":99}\n";
    ASSERT_EQ(::send(fd, hello.data(), hello.size(), 0), static_cast<ssize_t>(hello.size()));
    std::string answer;
    char buffer[512];
    for (ssize_t got = ::recv(fd, buffer, sizeof buffer, 0); got > 0;
         got = ::recv(fd, buffer, sizeof buffer, 0)) {
        answer.append(buffer, static_cast<std::size_t>(got));
    }
    EXPECT_NE(answer.find("control version"), std::string::npos) << answer;
    ::close(fd);
}

TEST_F(ControlSocket, NothingAnswersIsSaidAtOnce) {
    ControlClient client(path_, "clusterd", {});
    client.request({{"do", "echo"}}, seconds(60), [this](Result<json> r) {
        board_.set("unavailable", !r && r.error().code == ErrorCode::unavailable);
    });
    EXPECT_TRUE(board_.wait("unavailable", true));
}

}  // namespace
}  // namespace gemel::ipc
