#include <fcntl.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/ring/reactor.hpp"

namespace gemel::ring {
namespace {

std::unique_ptr<Reactor> reactor() {
    auto made = Reactor::create({.entries = 64, .buffer_bytes = 1 << 20, .log = {}});
    EXPECT_TRUE(made.has_value()) << made.error().message;
    return std::move(*made);
}

struct Result final : Completion {
    std::int32_t result = 0;
    std::function<void()> then;
    void on_complete(std::int32_t value, std::uint32_t) override {
        result = value;
        if (then) then();
    }
};

TEST(Reactor, RunsTasksOfOtherThreadsOnItsOwn) {
    auto ring = reactor();
    std::thread::id ran_on;
    std::thread other([&] {
        ring->post([&] {
            ran_on = std::this_thread::get_id();
            ring->stop();
        });
    });
    ring->run();
    other.join();
    EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST(Reactor, TimersFireInOrderAndNotEarly) {
    auto ring = reactor();
    std::vector<int> fired;
    const Instant start = Reactor::read_clock();
    Timer late(*ring, [&] {
        fired.push_back(3);
        EXPECT_GE(ring->now(), start + milliseconds(30));
        ring->stop();
    });
    Timer early(*ring, [&] {
        fired.push_back(1);
        EXPECT_GE(ring->now(), start + milliseconds(5));
    });
    Timer moved(*ring, [&] { fired.push_back(2); });
    Timer disarmed(*ring, [&] { fired.push_back(99); });
    late.arm(start + milliseconds(30));
    early.arm(start + milliseconds(5));
    moved.arm(start + milliseconds(500));
    moved.arm(start + milliseconds(15));
    disarmed.arm(start + milliseconds(10));
    disarmed.disarm();
    ring->run();
    EXPECT_EQ(fired, (std::vector<int>{1, 2, 3}));
}

TEST(Reactor, ATimerCanArmItselfAgain) {
    auto ring = reactor();
    int rounds = 0;
    std::unique_ptr<Timer> timer;
    timer = std::make_unique<Timer>(*ring, [&] {
        if (++rounds == 5) return ring->stop();
        timer->arm(ring->now() + milliseconds(1));
    });
    timer->arm(Reactor::read_clock());
    ring->run();
    EXPECT_EQ(rounds, 5);
}

TEST(Reactor, DeferredWorkRunsOnceATurn) {
    struct Work final : Deferred {
        int runs = 0;
        void run_deferred() override { ++runs; }
    } work;
    auto ring = reactor();
    ring->post([&] {
        ring->defer(work);
        ring->defer(work);
    });
    Timer end(*ring, [&] { ring->stop(); });
    end.arm(Reactor::read_clock() + milliseconds(5));
    ring->run();
    EXPECT_EQ(work.runs, 1);
}

TEST(Reactor, WritesAndReadsAFileThroughPoolMemory) {
    auto ring = reactor();
    std::string path = ::testing::TempDir() + "gemel-reactor-XXXXXX";
    const int fd = ::mkstemp(path.data());
    ASSERT_GE(fd, 0);
    ::unlink(path.c_str());
    const auto out = *ring->buffers().take(8192);
    const auto in = *ring->buffers().take(8192);
    std::ranges::fill(ring->buffers().memory(out), std::byte{0x5a});
    Result read;
    Result sync;
    Result write;
    write.then = [&] { ring->fdatasync(fd, sync); };
    sync.then = [&] { ring->read(fd, ring->buffers().memory(in), 4096, read); };
    read.then = [&] { ring->stop(); };
    ring->post([&] { ring->write(fd, ring->buffers().memory(out), 4096, 0, write); });
    ring->run();
    ::close(fd);
    EXPECT_EQ(write.result, 8192);
    EXPECT_EQ(sync.result, 0);
    EXPECT_EQ(read.result, 8192);
    EXPECT_TRUE(std::ranges::equal(ring->buffers().memory(in), ring->buffers().memory(out)));
}

TEST(Reactor, ManyOperationsAtOnceAllComplete) {
    auto ring = reactor();  // 64 entries
    constexpr int kOperations = 1000;
    int ended = 0;
    std::vector<Result> results(kOperations);
    std::array<std::byte, 8> memory{};
    const int fd = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    ring->post([&] {
        for (auto& result : results) {
            result.then = [&] {
                if (++ended == kOperations) ring->stop();
            };
            ring->read(fd, memory, 0, result);
        }
    });
    ring->run();
    ::close(fd);
    EXPECT_EQ(ended, kOperations);
}

TEST(Reactor, CancelEndsAWaitingOperation) {
    auto ring = reactor();
    int pipes[2];
    ASSERT_EQ(::pipe(pipes), 0);
    std::array<std::byte, 8> memory{};
    Result read;
    read.then = [&] { ring->stop(); };
    ring->post([&] { ring->read(pipes[0], memory, 0, read); });
    Timer later(*ring, [&] { ring->cancel(read); });
    later.arm(Reactor::read_clock() + milliseconds(5));
    ring->run();
    ::close(pipes[0]);
    ::close(pipes[1]);
    EXPECT_EQ(read.result, -ECANCELED);
}

}  // namespace
}  // namespace gemel::ring
