#include <functional>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/disk/disk.hpp"
#include "base/prng.hpp"

namespace gemel::disk {
namespace {

struct Request final : DiskRequest {
    DiskStatus status = DiskStatus::io_error;
    std::function<void()> then;
    void disk_done(DiskStatus value) override {
        status = value;
        if (then) then();
    }
};

struct DiskTest : ::testing::Test {
    static constexpr std::uint64_t kSize = 8 << 20;
    std::string path = ::testing::TempDir() + "gemel-disk-" + std::to_string(::getpid()) + ".img";
    std::unique_ptr<ring::Reactor> reactor;
    std::unique_ptr<Disk> disk;

    void SetUp() override {
        auto made = ring::Reactor::create({.entries = 64, .buffer_bytes = 4 << 20, .log = {}});
        ASSERT_TRUE(made.has_value()) << made.error().message;
        reactor = std::move(*made);
        ASSERT_TRUE(make_backing(path, kSize, true).has_value());
        auto file = open_exclusively(path);
        ASSERT_TRUE(file.has_value() && file->has_value());
        disk = std::make_unique<Disk>(*reactor, **file);
    }
    void TearDown() override {
        disk.reset();
        ::unlink(path.c_str());
    }
    // One request after the other on the reactor's thread.
    void run(std::vector<std::function<void(DiskRequest&)>> steps,
             std::vector<DiskStatus>* results = nullptr) {
        Request request;
        std::size_t at = 0;
        request.then = [&] {
            if (results != nullptr)
                results->push_back(request.status);
            else
                EXPECT_EQ(request.status, DiskStatus::ok) << "step " << at - 1;
            if (at == steps.size()) return reactor->post([&] { reactor->stop(); });
            steps[at++](request);
        };
        reactor->post([&] { steps[at++](request); });
        reactor->run();
    }
};

TEST_F(DiskTest, WritesFlushesAndReadsBack) {
    const auto out = *reactor->buffers().take(1 << 20);
    const auto in = *reactor->buffers().take(1 << 20);
    Prng random(3);
    for (auto& byte : reactor->buffers().memory(out)) byte = static_cast<std::byte>(random.next());
    run({[&](auto& r) { disk->write(r, 1 << 20, reactor->buffers().memory(out), false); },
         [&](auto& r) { disk->flush(r); },
         [&](auto& r) { disk->write(r, 4 << 20, reactor->buffers().memory(out).first(4096), true); },
         [&](auto& r) { disk->read(r, 1 << 20, reactor->buffers().memory(in)); }});
    EXPECT_TRUE(std::ranges::equal(reactor->buffers().memory(in), reactor->buffers().memory(out)));
    EXPECT_EQ(disk->in_flight(), 0U);
}

TEST_F(DiskTest, SectorsBelowTheAlignmentOfTheDeviceWork) {
    std::vector<std::byte> odd(1536 + 8);  // memory that is not aligned either
    const auto memory = std::span(odd).subspan(8);
    std::ranges::fill(memory, std::byte{0x77});
    std::vector<std::byte> back(4096);
    run({[&](auto& r) { disk->write(r, 512 * 3, memory, true); }, [&](auto& r) { disk->read(r, 0, back); }});
    EXPECT_EQ(back[512 * 3 - 1], std::byte{0});
    EXPECT_EQ(back[512 * 3], std::byte{0x77});
    EXPECT_EQ(back[512 * 6 - 1], std::byte{0x77});
    EXPECT_EQ(back[512 * 6], std::byte{0});
}

TEST_F(DiskTest, ZeroedRangesReadAsZeroInBothForms) {
    for (const bool unmap : {false, true}) {
        const auto piece = *reactor->buffers().take(1 << 20);
        std::ranges::fill(reactor->buffers().memory(piece), std::byte{0xee});
        std::vector<std::byte> back(1 << 20);
        // twice in this process: the second time a file system that cannot is known
        run({[&](auto& r) { disk->write(r, 0, reactor->buffers().memory(piece), false); },
             [&](auto& r) { disk->zero(r, 512, (1 << 20) - 1024, unmap); },
             [&](auto& r) { disk->zero(r, 1 << 20, 6 << 20, unmap); },
             [&](auto& r) { disk->read(r, 0, back); }});
        EXPECT_EQ(back[511], std::byte{0xee});
        EXPECT_EQ(back[(1 << 20) - 512], std::byte{0xee});
        EXPECT_TRUE(
            std::all_of(back.begin() + 512, back.end() - 512, [](std::byte b) { return b == std::byte{0}; }));
        reactor->buffers().release(piece);
        TearDown();
        SetUp();
    }
}

TEST_F(DiskTest, TheEndOfTheBackingIsAnError) {
    std::vector<std::byte> memory(4096);
    std::vector<DiskStatus> results;
    run({[&](auto& r) { disk->read(r, kSize, memory); }}, &results);
    EXPECT_EQ(results, std::vector{DiskStatus::io_error});
}

TEST_F(DiskTest, ManyRequestsAtOnce) {
    constexpr std::size_t kRequests = 500;
    std::vector<Request> requests(kRequests);
    std::vector<std::byte> memory(4096, std::byte{1});
    std::size_t ended = 0;
    for (auto& request : requests) {
        request.then = [&] {
            EXPECT_EQ(request.status, DiskStatus::ok);
            if (++ended == kRequests) reactor->stop();
        };
    }
    reactor->post([&] {
        for (std::size_t i = 0; i < kRequests; ++i) disk->write(requests[i], i * 4096, memory, false);
    });
    reactor->run();
    EXPECT_EQ(ended, kRequests);
}

}  // namespace
}  // namespace gemel::disk
