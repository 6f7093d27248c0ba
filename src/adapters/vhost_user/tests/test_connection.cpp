// Connections over real sockets, shared memory and eventfds, a volume in memory behind them.
#include <cstring>
#include <fcntl.h>
#include <future>
#include <mutex>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/front/tests/memory_volume.hpp"
#include "adapters/vhost_user/connection.hpp"
#include "adapters/vhost_user/tests/front_end_driver.hpp"
#include "base/prng.hpp"

namespace gemel::vhost_user {
namespace {

using front::BlockOperation;
using front::BlockStatus;

constexpr std::uint64_t kSize = 16U << 20;
constexpr std::uint32_t kRead = 0;
constexpr std::uint32_t kWrite = 1;
constexpr std::uint32_t kFlush = 4;
constexpr std::uint32_t kGetId = 8;
constexpr std::uint32_t kDiscard = 11;
constexpr std::uint32_t kWriteZeroes = 13;

class ConnectionTest : public ::testing::TestWithParam<bool> {
  protected:
    std::unique_ptr<ring::Reactor> reactor;
    front::MemoryVolume volume{kSize};
    std::thread thread;
    std::mutex mutex;
    std::vector<std::string> log;
    std::vector<std::unique_ptr<front::Connection>> connections;
    std::unique_ptr<FrontEndDriver> driver;

    void SetUp() override {
        auto made = ring::Reactor::create({.entries = 256, .buffer_bytes = 4U << 20, .log = {}});
        ASSERT_TRUE(made.has_value());
        reactor = std::move(*made);
        volume.reactor = reactor.get();
        thread = std::thread([this] { reactor->run(); });
        driver = std::make_unique<FrontEndDriver>(DriverOptions{.packed = GetParam()});
    }
    void TearDown() override {
        on_reactor([this] {
            for (const auto& each : connections) each->close();
            volume.release(BlockStatus::refused);
        });
        while (!connections_gone()) std::this_thread::yield();
        reactor->stop();
        thread.join();
        EXPECT_EQ(reactor->buffers().free_bytes(), reactor->buffers().total_bytes()) << "a payload leaked";
    }

    void on_reactor(const std::function<void()>& task) {
        std::promise<void> done;
        reactor->post([&] {
            task();
            done.set_value();
        });
        done.get_future().wait();
    }
    bool connections_gone() {
        bool gone = false;
        on_reactor([&] { gone = connections.empty(); });
        return gone;
    }
    void connect() {
        int pair[2] = {-1, -1};
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        driver->use(pair[0]);
        on_reactor([&] {
            front::Connection::Handlers handlers{
                [this](const std::string& line) {
                    const std::scoped_lock lock(mutex);
                    log.push_back(line);
                },
                [this](front::Connection& one) {
                    reactor->post([this, &one] {
                        std::erase_if(connections, [&](const auto& each) { return each.get() == &one; });
                    });
                }};
            const vhost::Disk disk{.size_bytes = kSize, .queues = 4};
            connections.push_back(
                door(*reactor, volume, disk, "web1-disk").connect(pair[1], std::move(handlers)));
            connections.back()->start();
        });
    }
    void connect_and_start() {
        connect();
        ASSERT_TRUE(driver->start());
    }
    std::string last_line() {
        const std::scoped_lock lock(mutex);
        return log.empty() ? "" : log.back();
    }
    // one request, executed
    std::uint8_t run(std::uint32_t type, std::uint64_t sector, std::uint32_t bytes, std::size_t slot = 0,
                     std::uint32_t pieces = 1, bool indirect = false) {
        if (!driver->add(type, sector, bytes, slot, pieces, indirect)) return 0xfe;
        driver->kick();
        return driver->reap(1).size() == 1 ? driver->status(slot) : 0xfd;
    }
    void wait_until_held(std::size_t count) const {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (volume.held_count < count && std::chrono::steady_clock::now() < until) {
            std::this_thread::yield();
        }
        ASSERT_EQ(volume.held_count, count);
    }
};

INSTANTIATE_TEST_SUITE_P(Rings, ConnectionTest, ::testing::Bool(),
                         [](const auto& one) { return one.param ? "packed" : "split"; });

TEST_P(ConnectionTest, WhatIsWrittenIsRead) {
    connect_and_start();
    Prng random(5);
    std::vector<std::byte> model(kSize);
    for (int round = 0; round < 400; ++round) {
        const std::uint32_t bytes = 512 * static_cast<std::uint32_t>(1 + random.below(256));
        const std::uint64_t sector = random.below((kSize - bytes) / 512);
        const auto pieces = static_cast<std::uint32_t>(1 + random.below(8));
        const bool indirect = random.below(2) == 0;
        if (random.below(2) == 0) {
            for (std::uint32_t i = 0; i < bytes; i += 8) {
                const std::uint64_t word = random.next();
                std::memcpy(driver->data(0) + i, &word, 8);
            }
            std::memcpy(model.data() + sector * 512, driver->data(0), bytes);
            ASSERT_EQ(run(kWrite, sector, bytes, 0, pieces, indirect), 0);
        } else {
            ASSERT_EQ(run(kRead, sector, bytes, 0, pieces, indirect), 0);
            ASSERT_EQ(std::memcmp(driver->data(0), model.data() + sector * 512, bytes), 0);
        }
    }
    EXPECT_FALSE(volume.fua_seen);
}

TEST_P(ConnectionTest, ManyAtOnceAreGivenBackOnce) {
    connect_and_start();
    Prng random(6);
    std::size_t given_back = 0;
    std::size_t in_flight = 0;
    for (int round = 0; round < 300; ++round) {
        while (in_flight < 12 &&
               driver->add(kWrite, random.below(2000), 4096, in_flight % FrontEndDriver::kSlots)) {
            ++in_flight;
        }
        driver->kick();
        const std::size_t got = driver->reap(1).size();
        ASSERT_GE(got, 1U);
        given_back += got;
        in_flight -= got;
    }
    given_back += driver->reap(in_flight).size();
    EXPECT_EQ(given_back, volume.seen.size());
}

// More payload than the pool has: parts wait for memory, nothing stalls for good.
TEST_P(ConnectionTest, LargeRequestsGoInParts) {
    connect_and_start();
    constexpr std::uint32_t kBytes = 5U << 20;
    for (std::uint32_t i = 0; i < kBytes; ++i) driver->data(0)[i] = static_cast<std::byte>(i * 7 >> 3);
    ASSERT_EQ(run(kWrite, 8, kBytes, 0, 20, true), 0);
    EXPECT_EQ(std::memcmp(volume.bytes.data() + 4096, driver->data(0), kBytes), 0);
    EXPECT_EQ(volume.seen.size(), 5U);
    std::memset(driver->data(0), 0, kBytes);
    ASSERT_EQ(run(kRead, 8, kBytes, 0, 20, true), 0);
    EXPECT_EQ(std::memcmp(volume.bytes.data() + 4096, driver->data(0), kBytes), 0);
}

TEST_P(ConnectionTest, OtherRequests) {
    connect_and_start();
    std::ranges::fill(volume.bytes, std::byte{0x55});
    EXPECT_EQ(run(kFlush, 0, 0), 0);
    ASSERT_EQ(volume.seen.size(), 1U);
    EXPECT_EQ(volume.seen[0], BlockOperation::flush);
    EXPECT_EQ(run(kGetId, 0, 20), 0);
    EXPECT_STREQ(reinterpret_cast<const char*>(driver->data(0)), "web1-disk");
    const auto range = [&](std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags) {
        std::memcpy(driver->data(0), &sector, 8);
        std::memcpy(driver->data(0) + 8, &sectors, 4);
        std::memcpy(driver->data(0) + 12, &flags, 4);
    };
    range(8, 16, 0);
    EXPECT_EQ(run(kDiscard, 0, 16), 0);
    EXPECT_EQ(volume.seen.back(), BlockOperation::discard);
    range(64, 8, 0);
    EXPECT_EQ(run(kWriteZeroes, 0, 16), 0);
    EXPECT_EQ(volume.seen.back(), BlockOperation::write_zeroes);
    range(96, 8, 1);
    EXPECT_EQ(run(kWriteZeroes, 0, 16), 0);
    EXPECT_EQ(volume.seen.back(), BlockOperation::discard);
    for (const std::size_t zero : {8U * 512, 23U * 512, 64U * 512, 96U * 512}) {
        EXPECT_EQ(volume.bytes[zero], std::byte{0});
    }
    EXPECT_EQ(volume.bytes[std::size_t{24} * 512], std::byte{0x55});
    EXPECT_EQ(run(99, 0, 0), 2) << "unsupported";
    EXPECT_EQ(run(kRead, kSize / 512, 512), 1) << "behind the end";
    volume.fail_at = 1U << 20;
    EXPECT_EQ(run(kWrite, 2048, 4096), 1);
    EXPECT_EQ(run(kRead, 2040, 8192), 1);
}

TEST_P(ConnectionTest, ConfigurationTellsTheSize) {
    connect_and_start();
    const auto config = driver->config();
    ASSERT_TRUE(config && config->size() == 72);
    std::uint64_t sectors = 0;
    std::memcpy(&sectors, config->data() + 12, sizeof sectors);
    EXPECT_EQ(sectors, kSize / 512);
}

TEST_P(ConnectionTest, WithoutFlushEveryWriteIsStable) {
    driver = std::make_unique<FrontEndDriver>(DriverOptions{.packed = GetParam(), .flush = false});
    connect_and_start();
    EXPECT_EQ(run(kWrite, 0, 4096), 0);
    EXPECT_TRUE(volume.fua_seen);
}

TEST_P(ConnectionTest, StopsWhenDrained) {
    connect_and_start();
    EXPECT_EQ(run(kFlush, 0, 0), 0);
    on_reactor([&] { volume.holds = true; });
    ASSERT_TRUE(driver->add(kWrite, 0, 4096, 0));
    ASSERT_TRUE(driver->add(kWrite, 8, 4096, 1));
    driver->kick();
    wait_until_held(2);
    driver->ask_base();
    EXPECT_FALSE(driver->receive_base(50)) << "answered with requests in flight";
    on_reactor([&] { volume.release(BlockStatus::ok); });
    const auto base = driver->receive_base(10000);
    EXPECT_EQ(driver->reap(2).size(), 2U);
    ASSERT_TRUE(base.has_value());
    // a packed ring counts entries: the flush had 2, each write 3
    const std::uint32_t at = GetParam() ? 8U | 0x8000U : 3U;
    EXPECT_EQ(*base & 0xffffU, at);
    EXPECT_EQ(*base >> 16, GetParam() ? at : 0) << "packed: the used index stands there too";
    ASSERT_TRUE(driver->add(kWrite, 0, 4096, 0));
    driver->kick();
    EXPECT_TRUE(driver->reap(1, 50).empty()) << "a stopped queue took something";
}

// What was in flight when the connection ended is run again by the next one, once.
TEST_P(ConnectionTest, InFlightIsRunAgain) {
    connect_and_start();
    on_reactor([&] { volume.holds = true; });
    for (std::size_t slot = 0; slot < 5; ++slot) {
        std::memset(driver->data(slot), static_cast<int>(slot + 1), 4096);
        ASSERT_TRUE(driver->add(kWrite, slot * 8, 4096, slot));
    }
    driver->kick();
    wait_until_held(5);
    driver->disconnect();
    on_reactor([&] { volume.release(BlockStatus::refused); });
    while (!connections_gone()) std::this_thread::yield();
    EXPECT_TRUE(driver->guest().reap().empty()) << "a refused request was answered";
    EXPECT_EQ(volume.bytes[0], std::byte{0});

    connect_and_start();
    EXPECT_EQ(driver->reap(5).size(), 5U);
    for (std::size_t slot = 0; slot < 5; ++slot) {
        EXPECT_EQ(driver->status(slot), 0);
        EXPECT_EQ(volume.bytes[slot * 4096], static_cast<std::byte>(slot + 1));
    }
    EXPECT_EQ(volume.seen.size(), 10U);
    EXPECT_EQ(run(kWrite, 0, 4096), 0);
    EXPECT_EQ(volume.seen.size(), 11U) << "nothing is run a third time";
}

// What succeeds after the connection ended is given back all the same, and not run again.
TEST_P(ConnectionTest, WhatSucceededIsNotRunAgain) {
    connect_and_start();
    on_reactor([&] { volume.holds = true; });
    ASSERT_TRUE(driver->add(kWrite, 0, 4096, 0));
    driver->kick();
    wait_until_held(1);
    driver->disconnect();
    on_reactor([&] { volume.release(BlockStatus::ok); });
    while (!connections_gone()) std::this_thread::yield();
    connect_and_start();
    EXPECT_EQ(driver->reap(1).size(), 1U);
    EXPECT_EQ(volume.seen.size(), 1U);
}

TEST_P(ConnectionTest, RefusedEndsTheConnection) {
    connect_and_start();
    on_reactor([&] { volume.holds = true; });
    ASSERT_TRUE(driver->add(kWrite, 0, 4096, 0));
    driver->kick();
    wait_until_held(1);
    on_reactor([&] { volume.release(BlockStatus::refused); });
    EXPECT_TRUE(driver->ended());
    EXPECT_TRUE(driver->guest().reap().empty());
}

// Memory is shared anew (hot-plugged) while a request is under way: its old place stays until it ends.
TEST_P(ConnectionTest, MemoryChangesUnderWay) {
    connect_and_start();
    std::memset(volume.bytes.data(), 0x77, 4096);
    on_reactor([&] { volume.holds = true; });
    ASSERT_TRUE(driver->add(kRead, 0, 4096, 0));
    driver->kick();
    wait_until_held(1);
    EXPECT_EQ(driver->share_memory(), 0U);
    on_reactor([&] { volume.release(BlockStatus::ok); });
    EXPECT_EQ(driver->reap(1).size(), 1U);
    EXPECT_EQ(driver->data(0)[4095], std::byte{0x77});
    EXPECT_EQ(run(kWrite, 8, 4096), 0);
}

// The ring's own memory is taken away while a request is under way: the connection ends, this process does
// not.
TEST_P(ConnectionTest, MemoryOfTheRingIsTakenAway) {
    connect_and_start();
    on_reactor([&] { volume.holds = true; });
    ASSERT_TRUE(driver->add(kRead, 0, 4096, 0));
    driver->kick();
    wait_until_held(1);
    driver->share_memory(nullptr, 0x1000);
    EXPECT_TRUE(driver->ended());
    on_reactor([&] { volume.release(BlockStatus::ok); });
    while (!connections_gone()) std::this_thread::yield();
    EXPECT_NE(last_line().find("not shared any more"), std::string::npos) << last_line();
}

// Descriptors are replaced under load: no kick and no interrupt is lost.
TEST_P(ConnectionTest, EventsAreReplacedUnderWay) {
    connect_and_start();
    for (int round = 0; round < 50; ++round) {
        ASSERT_TRUE(driver->add(kWrite, 0, 4096, 0));
        driver->kick();
        driver->send_events();
        ASSERT_EQ(driver->reap(1).size(), 1U);
    }
}

TEST_P(ConnectionTest, WritesToTheGuestAreLogged) {
    connect_and_start();
    const auto page = [&](std::uint64_t address) {
        const std::uint64_t number = address / vhost::kLogPageBytes;
        return (std::to_integer<unsigned>(driver->log_memory().base[number / 8]) >> (number % 8) & 1U) != 0;
    };
    const std::uint64_t data = vhost::Guest::kBase + vhost::Guest::kData;
    ASSERT_EQ(driver->log(true), 0U);
    EXPECT_EQ(run(kRead, 0, 8192), 0);
    EXPECT_TRUE(page(data) && page(data + 4096));
    EXPECT_FALSE(page(data + 8192));
    EXPECT_TRUE(page(vhost::Guest::kBase + 0xc000)) << "the status byte";
    ASSERT_EQ(driver->log(false), 0U);
    std::memset(driver->log_memory().base, 0, driver->log_memory().bytes);
    EXPECT_EQ(run(kRead, 0, 8192), 0);
    EXPECT_FALSE(page(data));
}

// ---- what a hostile front end or guest tries ----

TEST_P(ConnectionTest, MemoryThatMayShrinkIsRefused) {
    connect();
    ASSERT_TRUE(driver->negotiate());
    const Shared unsealed(vhost::Guest::kBytes, false);
    EXPECT_EQ(driver->share_memory(&unsealed), 1U);
    EXPECT_NE(last_line().find("sealed against shrinking"), std::string::npos) << last_line();
    const Shared small(4096);
    EXPECT_EQ(driver->share_memory(&small), 1U);
    EXPECT_EQ(driver->share_memory(), 0U) << "it may try again";
}

TEST_P(ConnectionTest, AnEventThatIsNoEventfdIsRefused) {
    connect();
    ASSERT_TRUE(driver->negotiate() && driver->share_memory() == 0);
    const int zero = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
    EXPECT_EQ(driver->set_up_queue(zero), std::nullopt);
    ::close(zero);
    EXPECT_TRUE(driver->ended());
    EXPECT_NE(last_line().find("no eventfd"), std::string::npos) << last_line();
}

TEST_P(ConnectionTest, AnAddressOutsideEndsTheConnection) {
    connect_and_start();
    ASSERT_TRUE(driver->guest().add({{vhost::Guest::kBase + 0xc000, 16, false},
                                     {vhost::Guest::kBase + vhost::Guest::kBytes, 4096, true},
                                     {vhost::Guest::kBase + 0xc030, 1, true}}));
    driver->kick();
    EXPECT_TRUE(driver->ended());
    EXPECT_NE(last_line().find("outside the guest's memory"), std::string::npos) << last_line();
}

TEST_P(ConnectionTest, AChainThatIsNoRequestEndsTheConnection) {
    connect_and_start();
    ASSERT_TRUE(driver->guest().add({{vhost::Guest::kBase + 0xc000, 8, false}}));
    driver->kick();
    EXPECT_TRUE(driver->ended());
    EXPECT_NE(last_line().find("no request of a block device"), std::string::npos) << last_line();
}

// Nobody reads the interrupts: the eventfd is full, and this side goes on.
TEST_P(ConnectionTest, AFullCallDoesNotStopTheQueue) {
    driver = std::make_unique<FrontEndDriver>(DriverOptions{.packed = GetParam(), .event_index = false});
    connect_and_start();
    driver->fill_call();
    for (int i = 0; i < 3; ++i) {
        ASSERT_TRUE(driver->add(kFlush, 0, 0, 0));
        driver->kick();
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (driver->guest().reap().empty()) ASSERT_LT(std::chrono::steady_clock::now(), until);
    }
}

}  // namespace
}  // namespace gemel::vhost_user
