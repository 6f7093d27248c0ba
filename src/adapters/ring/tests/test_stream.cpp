#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/ring/stream.hpp"
#include "base/prng.hpp"

namespace gemel::ring {
namespace {

struct End final : StreamOwner {
    std::unique_ptr<Stream> stream;
    std::function<void(std::size_t)> received;
    std::function<void()> drained;
    std::function<void()> closed;
    std::string reason;
    void on_received(std::size_t bytes) override {
        if (received) received(bytes);
    }
    void on_drained() override {
        if (drained) drained();
    }
    void on_broken(std::string_view why) override { reason = why; }
    void on_closed() override {
        stream.reset();
        if (closed) closed();
    }
};

struct StreamTest : ::testing::Test {
    std::unique_ptr<Reactor> ring;
    End left;
    End right;

    void SetUp() override {
        auto made = Reactor::create({.entries = 64, .buffer_bytes = 4 << 20, .log = {}});
        ASSERT_TRUE(made.has_value());
        ring = std::move(*made);
        int fds[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        left.stream = std::make_unique<Stream>(*ring, left, fds[0], 1000, 16);
        right.stream = std::make_unique<Stream>(*ring, right, fds[1], 1000, 16);
    }
    void stop_when_both_closed() {
        const auto check = [this] {
            if (!left.stream && !right.stream) ring->stop();
        };
        left.closed = check;
        right.closed = check;
    }
};

// Heads and payloads of random sizes arrive complete, in order and unchanged; full queues are waited out.
TEST_F(StreamTest, CarriesHeadsAndPayloadsInOrder) {
    stop_when_both_closed();
    Prng random(11);
    std::vector<std::byte> sent;
    std::vector<std::byte> got;
    constexpr std::size_t kTotal = 20 << 20;
    std::array<std::byte, 300> head{};
    std::size_t head_size = 0;
    std::optional<BufferPool::Handle> payload;
    std::size_t payload_size = 0;
    const auto feed = [&] {
        for (;;) {
            if (head_size == 0) {
                if (sent.size() >= kTotal) return;
                head_size = 1 + random.below(head.size());
                for (auto& byte : std::span(head).first(head_size))
                    byte = static_cast<std::byte>(random.next());
                payload_size = random.chance(1, 2) ? 1 + random.below(300'000) : 0;
                if (payload_size > 0) {
                    payload = ring->buffers().take(payload_size);
                    ASSERT_TRUE(payload.has_value());
                    for (std::size_t i = 0; i < payload_size; i += 97) {
                        ring->buffers().memory(*payload)[i] = static_cast<std::byte>(random.next());
                    }
                }
            }
            const auto bytes = std::span<const std::byte>(head).first(head_size);
            const bool taken =
                payload ? left.stream->send(bytes, *payload, payload_size) : left.stream->send(bytes);
            if (!taken) return;
            sent.insert(sent.end(), bytes.begin(), bytes.end());
            if (payload) {
                const auto memory = ring->buffers().memory(*payload).first(payload_size);
                sent.insert(sent.end(), memory.begin(), memory.end());
                ring->buffers().release(*payload);
                payload.reset();
            }
            head_size = 0;
        }
    };
    std::vector<std::byte> memory(50'000);
    left.drained = feed;
    right.received = [&](std::size_t bytes) {
        got.insert(got.end(), memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(bytes));
        if (got.size() >= kTotal && got.size() == sent.size() && left.stream->unsent_bytes() == 0) {
            left.stream->close();
        }
        right.stream->receive(memory);
    };
    ring->post([&] {
        right.stream->receive(memory);
        left.stream->receive(std::span(memory).first(1));
        feed();
    });
    ring->run();
    EXPECT_EQ(got.size(), sent.size());
    EXPECT_TRUE(got == sent);
    EXPECT_EQ(right.reason, "closed by the other side");
    EXPECT_EQ(ring->buffers().free_bytes(), ring->buffers().total_bytes());
}

TEST_F(StreamTest, ReceiveAllWaitsForTheLastByte) {
    stop_when_both_closed();
    std::vector<std::byte> memory(1500);
    std::size_t calls = 0;
    right.received = [&](std::size_t bytes) {
        ++calls;
        EXPECT_EQ(bytes, 1500U);
        left.stream->close();
        right.stream->receive(memory);
    };
    const std::vector<std::byte> part(750, std::byte{1});
    left.drained = [&, first = true]() mutable {
        if (!std::exchange(first, false)) return;
        EXPECT_TRUE(left.stream->send(part));
    };
    ring->post([&] {
        right.stream->receive_all(memory);
        EXPECT_TRUE(left.stream->send(part));
    });
    ring->run();
    EXPECT_EQ(calls, 1U);
}

TEST_F(StreamTest, SaysWhenThereIsNoRoom) {
    stop_when_both_closed();
    ring->post([&] {
        const std::vector<std::byte> head(400);
        EXPECT_TRUE(left.stream->send(head));
        EXPECT_TRUE(left.stream->send(head));
        EXPECT_FALSE(left.stream->send(head));
        EXPECT_FALSE(left.stream->send({}));
        left.stream->close();
        EXPECT_FALSE(left.stream->send(head));
        right.stream->close();
    });
    ring->run();
}

}  // namespace
}  // namespace gemel::ring
