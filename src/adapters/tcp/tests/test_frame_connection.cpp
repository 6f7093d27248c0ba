#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/tcp/acceptor.hpp"
#include "adapters/tcp/connector.hpp"
#include "adapters/tcp/frame_connection.hpp"
#include "base/checksum.hpp"
#include "base/prng.hpp"

namespace gemel::tcp {
namespace {

struct Frame {
    std::vector<std::byte> body;
    std::vector<std::byte> payload;
    bool operator==(const Frame&) const = default;
};

struct FrameTest : ::testing::Test {
    std::unique_ptr<ring::Reactor> reactor;
    std::unique_ptr<FrameConnection> left;
    std::unique_ptr<FrameConnection> right;
    int raw = -1;  // the left end without a FrameConnection
    std::vector<Frame> got;
    std::string reason;
    std::function<void()> on_frame;
    std::function<void()> on_end;

    void SetUp() override {
        auto made = ring::Reactor::create({.entries = 64, .buffer_bytes = 8 << 20, .log = {}});
        ASSERT_TRUE(made.has_value());
        reactor = std::move(*made);
    }
    void pair(bool raw_left) {
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        const auto ended = [this] {
            if (on_end) on_end();
        };
        if (raw_left) {
            raw = fds[0];
        } else {
            left = std::make_unique<FrameConnection>(
                *reactor, fds[0],
                FrameConnection::Handlers{[](const auto&, auto, auto) {}, [](const auto&) {}, ended});
        }
        right = std::make_unique<FrameConnection>(
            *reactor, fds[1],
            FrameConnection::Handlers{[this](const link::FrameHeader& header, std::span<const std::byte> body,
                                             FrameConnection::Handle payload) {
                                          Frame frame{{body.begin(), body.end()}, {}};
                                          if (payload != FrameConnection::kNoPayload) {
                                              const auto memory = reactor->buffers().memory(payload).first(
                                                  header.payload_bytes);
                                              frame.payload.assign(memory.begin(), memory.end());
                                              reactor->buffers().release(payload);
                                          }
                                          got.push_back(std::move(frame));
                                          if (on_frame) on_frame();
                                      },
                                      [this](const std::string& why) { reason = why; }, ended});
    }
    static std::vector<std::byte> head_of(const Frame& frame, std::uint64_t sequence) {
        link::FrameHeader header;
        header.type = frame.payload.empty() ? link::FrameType::ack : link::FrameType::write;
        header.sequence = sequence;
        header.body_bytes = static_cast<std::uint32_t>(frame.body.size());
        header.payload_bytes = static_cast<std::uint32_t>(frame.payload.size());
        header.body_crc = crc32c(frame.body);
        header.payload_crc = crc32c(frame.payload);
        std::vector<std::byte> head(link::kHeaderBytes + frame.body.size());
        link::encode_header(header,
                            std::span<std::byte, link::kHeaderBytes>(head.data(), link::kHeaderBytes));
        std::ranges::copy(frame.body, head.begin() + link::kHeaderBytes);
        return head;
    }
};

TEST_F(FrameTest, CarriesFramesOfAllSizes) {
    pair(false);
    Prng random(5);
    std::vector<Frame> sent;
    const auto fill = [&](std::vector<std::byte>& bytes, std::size_t size) {
        bytes.resize(size);
        for (auto& byte : bytes) byte = static_cast<std::byte>(random.next());
    };
    constexpr std::size_t kSizes[] = {0, 512, 4096, 5000, 131072, 1 << 20};
    on_frame = [&] {
        if (got.size() < 300) return;
        left->close();
        right->close();
    };
    on_end = [&] {
        if (!left->is_open() && !right->is_open()) reactor->post([&] { reactor->stop(); });
    };
    reactor->post([&] {
        left->start();
        right->start();
        for (int i = 0; i < 300; ++i) {
            Frame frame;
            fill(frame.body, 1 + random.below(i % 50 == 0 ? 65536 : 100));
            fill(frame.payload, kSizes[random.below(i % 20 == 0 ? 6 : 4)]);
            auto head = head_of(frame, static_cast<std::uint64_t>(i) + 1);
            FrameConnection::Handle piece = FrameConnection::kNoPayload;
            if (!frame.payload.empty()) {
                const auto taken = reactor->buffers().take(frame.payload.size());
                if (!taken) continue;
                piece = *taken;
                std::ranges::copy(frame.payload, reactor->buffers().memory(piece).begin());
            }
            left->send(std::move(head), piece, static_cast<std::uint32_t>(frame.payload.size()));
            if (piece != FrameConnection::kNoPayload) reactor->buffers().release(piece);
            sent.push_back(std::move(frame));
        }
        ASSERT_EQ(sent.size(), 300U);
    });
    reactor->run();
    EXPECT_TRUE(got == sent);
    EXPECT_EQ(reactor->buffers().free_bytes(), reactor->buffers().total_bytes());
}

// N5: what fails a checksum ends the connection, and nothing of it is handed on.
TEST_F(FrameTest, CorruptBytesEndTheConnection) {
    const Frame frame{std::vector<std::byte>(30, std::byte{1}), std::vector<std::byte>(4096, std::byte{2})};
    auto bytes = head_of(frame, 1);
    bytes.insert(bytes.end(), frame.payload.begin(), frame.payload.end());
    const std::size_t places[] = {0, 20, link::kHeaderBytes + 3, link::kHeaderBytes + 30 + 100};
    for (const std::size_t place : places) {
        got.clear();
        reason.clear();
        SetUp();
        pair(true);
        auto bad = bytes;
        bad[place] ^= std::byte{0x10};
        on_end = [&] { reactor->post([&] { reactor->stop(); }); };
        ASSERT_EQ(::write(raw, bad.data(), bad.size()), static_cast<ssize_t>(bad.size()));
        reactor->post([&] { right->start(); });
        reactor->run();
        EXPECT_TRUE(got.empty()) << place;
        EXPECT_FALSE(reason.empty()) << place;
        right.reset();
        EXPECT_EQ(reactor->buffers().free_bytes(), reactor->buffers().total_bytes());
        ::close(raw);
    }
}

TEST_F(FrameTest, ARefusalStillLeavesBeforeTheEnd) {
    pair(false);
    on_end = [&] {
        if (!left->is_open() && !right->is_open()) reactor->post([&] { reactor->stop(); });
    };
    reactor->post([&] {
        left->start();
        right->start();
        left->send(head_of({std::vector<std::byte>(5), {}}, 1), FrameConnection::kNoPayload, 0);
        left->close_after_sending();
    });
    reactor->run();
    EXPECT_EQ(got.size(), 1U);
    EXPECT_EQ(reason, "closed by the other side");
}

TEST(TcpAddress, SaysWhatIsWrong) {
    for (const char* bad : {"", "host", ":7710", "10.0.0.1:", "no such host.invalid:1"}) {
        const auto address = resolve(bad, false);
        ASSERT_FALSE(address.has_value()) << bad;
        EXPECT_NE(address.error().message.find("expected HOST:PORT"), std::string::npos);
    }
    EXPECT_TRUE(resolve("127.0.0.1:7710", false).has_value());
    EXPECT_TRUE(resolve("[::1]:7710", false).has_value());
}

TEST(TcpConnect, ConnectsWhenTheListenerAppears) {
    auto made = ring::Reactor::create({.entries = 64, .buffer_bytes = 1 << 20, .log = {}});
    ASSERT_TRUE(made.has_value());
    auto& reactor = **made;
    const auto probe = listen_on("127.0.0.1:0");
    ASSERT_TRUE(probe.has_value());
    sockaddr_in bound{};
    socklen_t length = sizeof bound;
    ::getsockname(*probe, reinterpret_cast<sockaddr*>(&bound), &length);
    ::close(*probe);
    const std::string address = "127.0.0.1:" + std::to_string(ntohs(bound.sin_port));
    std::vector<std::string> complaints;
    std::unique_ptr<Acceptor> acceptor;
    int ends = 0;
    const auto end = [&](int fd) {
        ::close(fd);
        if (++ends < 2) return;
        acceptor->stop([&] { reactor.stop(); });
    };
    Connector connector(reactor, address, end, [&](const std::string& line) {
        complaints.push_back(line);
        const auto listener = listen_on(address);
        ASSERT_TRUE(listener.has_value()) << listener.error().message;
        acceptor = std::make_unique<Acceptor>(reactor, *listener, end);
        acceptor->start();
    });
    reactor.post([&] { connector.start(Duration{}); });
    reactor.run();
    EXPECT_EQ(complaints.size(), 1U);
    EXPECT_TRUE(connector.resting());
}

}  // namespace
}  // namespace gemel::tcp
