#include <chrono>
#include <condition_variable>
#include <mutex>
#include <netinet/in.h>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "adapters/heartbeat/peer_channel.hpp"
#include "adapters/http/tests/pki.hpp"

namespace gemel::heartbeat {
namespace {

std::uint16_t free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    ::close(fd);
    return ntohs(address.sin_port);
}

// What came in, as "from/path:text".
class Inbox {
  public:
    OnMessage callback() {
        return [this](const std::string& from, const std::string& path, const std::string& text) {
            const std::scoped_lock lock(mutex_);
            got_.insert(fmt::format("{}/{}:{}", from, path, text));
            changed_.notify_all();
        };
    }
    bool has(const std::string& wanted, std::chrono::seconds limit = std::chrono::seconds(5)) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, limit, [&] { return got_.contains(wanted); });
    }
    std::size_t count() {
        const std::scoped_lock lock(mutex_);
        return got_.size();
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::set<std::string> got_;
};

class HeartbeatTest : public ::testing::Test {
  protected:
    ChannelOptions options(const std::string& self, std::uint16_t mine, const std::string& peer,
                           std::uint16_t theirs) {
        ChannelOptions out;
        out.tls = pki_.node(self);
        // The loopback network has as many addresses as a node has links.
        out.listen = {{"127.0.0.1", mine}, {"127.0.1.1", mine}, {"127.0.0.1", mine}};
        out.paths = {{peer, "control", http::Address::tls_at("127.0.0.1", theirs), ""},
                     {peer, "link1", http::Address::tls_at("127.0.1.1", theirs), "127.0.1.1"}};
        return out;
    }
    gemel::testing::ScratchDirectory scratch_;
    gemel::testing::TestPki pki_{scratch_.path() / "pki"};
    std::uint16_t port1_ = free_port();
    std::uint16_t port2_ = free_port();
    Inbox inbox1_;
    Inbox inbox2_;
};

TEST_F(HeartbeatTest, BothDirectionsOverEveryPathAndAfterARestart) {
    PeerChannel one(options("node1", port1_, "node2", port2_), inbox1_.callback());
    ASSERT_TRUE(one.start());
    {
        PeerChannel two(options("node2", port2_, "node1", port1_), inbox2_.callback());
        ASSERT_TRUE(two.start());
        one.send("node2", "", "hello");
        EXPECT_TRUE(inbox2_.has("node1/control:hello"));
        EXPECT_TRUE(inbox2_.has("node1/link1:hello"));
        two.send("node1", "link1", "answer");
        EXPECT_TRUE(inbox1_.has("node2/link1:answer"));
        one.send("node2", "control", std::string(20000, 'x'));
        one.send("node3", "", "nobody");
        one.send("node2", "control", "last");
        EXPECT_TRUE(inbox2_.has("node1/control:last"));
        EXPECT_EQ(inbox2_.count(), 3U);
        EXPECT_GE(one.round_trip_us("node2", "control"), -1);
    }
    one.send("node2", "", "lost");
    PeerChannel again(options("node2", port2_, "node1", port1_), inbox2_.callback());
    ASSERT_TRUE(again.start());
    // Repeated, as heartbeats are, until one gets through.
    bool through = false;
    for (int i = 0; i < 50 && !through; ++i) {
        one.send("node2", "", "back");
        through = inbox2_.has("node1/control:back", std::chrono::seconds(1));
    }
    EXPECT_TRUE(through);
}

// Nobody but the node a path belongs to is talked to, and a stranger is not heard.
TEST_F(HeartbeatTest, OnlyTheRightCertificateIsTalkedTo) {
    PeerChannel one(options("node1", port1_, "node2", port2_), inbox1_.callback());
    ASSERT_TRUE(one.start());
    PeerChannel wrong(options("node3", port2_, "node1", port1_), inbox2_.callback());
    ASSERT_TRUE(wrong.start());
    one.send("node2", "", "for node2 only");
    // It says itself, truthfully, that it is node3: the name is the certificate's.
    wrong.send("node1", "control", "hello");
    EXPECT_TRUE(inbox1_.has("node3/control:hello"));
    EXPECT_EQ(inbox2_.count(), 0U);
    EXPECT_EQ(one.round_trip_us("node2", "control"), -1);
}

}  // namespace
}  // namespace gemel::heartbeat
