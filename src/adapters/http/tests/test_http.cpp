#include <atomic>
#include <chrono>
#include <future>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/http/client.hpp"
#include "adapters/http/server.hpp"
#include "adapters/http/tests/pki.hpp"

namespace gemel::http {
namespace {

Router test_router() {
    Router router;
    router.add("GET", "/v1/volumes/{name}", [](const Request& request, std::shared_ptr<Responder> out) {
        const auto wait = request.query.contains("wait") ? request.query.at("wait") : "";
        out->respond(
            {200, request.parameters.at("name") + "|" + wait + "|" + request.peer_name, "text/plain"});
    });
    router.add("POST", "/v1/echo", [](const Request& request, std::shared_ptr<Responder> out) {
        out->respond({201, request.body, "application/json"});
    });
    router.add("GET", "/v1/dropped", [](const Request&, std::shared_ptr<Responder>) {});
    return router;
}

class HttpTest : public ::testing::Test {
  protected:
    void serve(Router router, ServerOptions options = {}) {
        server_.emplace(std::move(router), options);
        ASSERT_TRUE(server_->listen_unix(socket_, 0600));
        server_->start();
    }
    Client client(std::size_t body_limit = 1 << 20) {
        return Client({Address::unix_socket(socket_), std::nullopt, "", "", body_limit});
    }
    gemel::testing::ScratchDirectory scratch_;
    std::string socket_ = scratch_ / "api.sock";
    std::optional<Server> server_;
};

TEST_F(HttpTest, RoutesDecodeNamesAndQueries) {
    serve(test_router());
    auto c = client();
    const auto answer = c.call({"GET", "/v1/volumes/web%2d1?wait=5%20s", "", ""}, seconds(5));
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->status, 200U);
    EXPECT_EQ(answer->body, "web-1|5 s|");
}

TEST_F(HttpTest, KeepsOneConnectionForManyCalls) {
    serve(test_router());
    auto c = client();
    for (int i = 0; i < 100; ++i) {
        const std::string body = "{\"n\":" + std::to_string(i) + "}";
        const auto answer = c.call({"POST", "/v1/echo", body}, seconds(5));
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->status, 201U);
        EXPECT_EQ(answer->body, body);
    }
}

TEST_F(HttpTest, SaysWhatIsWrong) {
    ServerOptions options;
    options.body_limit = 1000;
    serve(test_router(), options);
    auto c = client();
    EXPECT_EQ(c.call({"GET", "/v1/none", "", ""}, seconds(5))->status, 404U);
    EXPECT_EQ(c.call({"DELETE", "/v1/echo", "", ""}, seconds(5))->status, 400U);
    const auto dropped = c.call({"GET", "/v1/dropped", "", ""}, seconds(5));
    EXPECT_EQ(dropped->status, 500U);
    EXPECT_EQ(c.call({"POST", "/v1/echo", std::string(2000, 'x')}, seconds(5))->status, 400U);
    EXPECT_EQ(c.call({"POST", "/v1/echo", std::string(900, 'x')}, seconds(5))->status, 201U);
}

TEST_F(HttpTest, BoundsWhatAnAnswerMayHold) {
    serve(test_router());
    auto c = client(100);
    const auto answer = c.call({"POST", "/v1/echo", std::string(2000, 'x')}, seconds(5));
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::out_of_space);
}

TEST_F(HttpTest, NothingListening) {
    auto c = client();
    const auto answer = c.call({}, seconds(5));
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
}

TEST_F(HttpTest, AnAnswerThatDoesNotComeTimesOut) {
    std::shared_ptr<Responder> kept;
    Router router;
    router.add("GET", "/never",
               [&](const Request&, std::shared_ptr<Responder> out) { kept = std::move(out); });
    serve(std::move(router));
    auto c = client();
    const auto answer = c.call({"GET", "/never", "", ""}, milliseconds(100));
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::timed_out);
    server_->stop();
    kept.reset();
}

TEST_F(HttpTest, ReconnectsAfterTheServerRestarted) {
    serve(test_router());
    auto c = client();
    ASSERT_TRUE(c.call({"POST", "/v1/echo", "{}"}, seconds(5)));
    server_.reset();
    EXPECT_FALSE(c.call({"POST", "/v1/echo", "{}"}, seconds(5)));
    serve(test_router());
    const auto answer = c.call({"POST", "/v1/echo", "{}"}, seconds(5));
    ASSERT_TRUE(answer) << answer.error().message;
}

TEST_F(HttpTest, StreamsLinesUntilTheClientLeaves) {
    std::promise<std::shared_ptr<Responder>> started;
    Router router;
    router.add("GET", "/events", [&](const Request&, std::shared_ptr<Responder> out) {
        out->begin_stream("application/x-ndjson");
        started.set_value(std::move(out));
    });
    serve(std::move(router));
    std::thread writer([&] {
        auto out = started.get_future().get();
        EXPECT_TRUE(out->write("{\"a\":1}\n{\"a\""));
        EXPECT_TRUE(out->write(":2}\n"));
        // Once the client has gone, writing says so: a condition, not a time.
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        bool alive = true;
        while (alive && std::chrono::steady_clock::now() < deadline) {
            alive = out->write("\n");
            std::this_thread::yield();
        }
        EXPECT_FALSE(alive);
    });
    auto c = client();
    std::vector<std::string> lines;
    const auto done =
        c.stream({"GET", "/events", "", ""}, seconds(5), seconds(5), [&](std::string_view line) {
            lines.emplace_back(line);
            return lines.size() < 2;
        });
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_EQ(lines, (std::vector<std::string>{"{\"a\":1}", "{\"a\":2}"}));
    writer.join();
}

TEST_F(HttpTest, AStreamEndsWhenTheServerFinishesAndCancelEndsAWaitingOne) {
    std::shared_ptr<Responder> kept;
    Router router;
    router.add("GET", "/short", [&](const Request&, std::shared_ptr<Responder> out) {
        out->begin_stream("application/x-ndjson");
        out->write("one\n");
        out->finish();
    });
    router.add("GET", "/long", [&](const Request&, std::shared_ptr<Responder> out) {
        out->begin_stream("application/x-ndjson");
        out->write("first\n");
        kept = std::move(out);
    });
    serve(std::move(router));
    auto c = client();
    int lines = 0;
    const auto count = [&](std::string_view) { return ++lines > 0; };
    EXPECT_TRUE(c.stream({"GET", "/short", "", ""}, seconds(5), seconds(5), count));
    EXPECT_EQ(lines, 1);
    std::thread other;
    const auto ended = c.stream({"GET", "/long", "", ""}, seconds(5), seconds(30), [&](std::string_view) {
        other = std::thread([&] { c.cancel(); });
        return true;
    });
    EXPECT_FALSE(ended);
    other.join();
    server_->stop();
    kept.reset();
}

TEST_F(HttpTest, AStaleSocketFileIsReplacedAndALiveOneIsNot) {
    {
        // A socket file whose process is gone.
        const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket_.copy(address.sun_path, sizeof address.sun_path - 1);
        ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        ::close(fd);
    }
    serve(test_router());
    Server second(test_router(), {});
    const auto refused = second.listen_unix(socket_, 0600);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
    EXPECT_TRUE(client().call({"POST", "/v1/echo", "{}"}, seconds(5)));
}

class TlsTest : public HttpTest {
  protected:
    gemel::testing::TestPki pki_{scratch_.path() / "pki"};
    TlsFiles node1_ = pki_.node("node1");
    TlsFiles node2_ = pki_.node("node2");

    std::uint16_t serve_tls() {
        server_.emplace(test_router(), ServerOptions{});
        const auto port = server_->listen_tls("127.0.0.1", 0, node1_);
        EXPECT_TRUE(port) << port.error().message;
        server_->start();
        return port.value_or(0);
    }
};

TEST_F(TlsTest, BothSidesKnowEachOther) {
    const auto port = serve_tls();
    Client c({Address::tls_at("127.0.0.1", port), node2_, "node1", "127.0.0.1"});
    for (int i = 0; i < 3; ++i) {
        const auto answer = c.call({"GET", "/v1/volumes/a", "", ""}, seconds(5));
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->body, "a||node2");
    }
}

TEST_F(TlsTest, WrongNameStrangerAndNoCertificateAreRefused) {
    const auto port = serve_tls();
    Client wrong_name({Address::tls_at("127.0.0.1", port), node2_, "node3", ""});
    EXPECT_EQ(wrong_name.call({}, seconds(5)).error().code, ErrorCode::unavailable);
    gemel::testing::TestPki other(scratch_.path() / "other");
    const auto stranger_files = other.node("node2");
    // A stranger that trusts our CA but is not signed by it: TLS 1.3 refuses it at its first request.
    Client stranger({Address::tls_at("127.0.0.1", port),
                     TlsFiles{node1_.ca, stranger_files.certificate, stranger_files.key}, "", ""});
    EXPECT_FALSE(stranger.call({"GET", "/v1/volumes/a", "", ""}, seconds(5)));
    Client foreign_ca({Address::tls_at("127.0.0.1", port), stranger_files, "", ""});
    EXPECT_EQ(foreign_ca.call({}, seconds(5)).error().code, ErrorCode::unavailable);
}

TEST(Address, ParsesWhatConfigurationsHold) {
    EXPECT_EQ(Address::parse("https://10.77.0.1:2379")->to_string(), "https://10.77.0.1:2379");
    EXPECT_EQ(Address::parse("10.77.0.1:7700")->port, 7700);
    EXPECT_EQ(Address::parse("https://[fd00::1]:2379/")->host, "fd00::1");
    EXPECT_EQ(Address::parse("unix:/run/x.sock")->unix_path, "/run/x.sock");
    for (const char* bad :
         {"", "https://", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:70000", ":12", "10.0.0.1:12x"})
        EXPECT_FALSE(Address::parse(bad)) << bad;
}

}  // namespace
}  // namespace gemel::http
