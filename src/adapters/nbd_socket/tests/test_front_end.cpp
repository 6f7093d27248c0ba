// The front end over real sockets with a foreign client library (libnbd's and QEMU's tools), a volume in
// memory behind it.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/front/front_end.hpp"
#include "adapters/front/tests/memory_volume.hpp"
#include "adapters/nbd_socket/connection.hpp"
#include "base/prng.hpp"

namespace gemel::nbd_socket {
namespace {

using front::FrontEnd;
using front::FrontEndOptions;

constexpr std::uint64_t kSize = 24 << 20;

struct FrontEndTest : ::testing::Test {
    std::string directory = ::testing::TempDir() + "gemel-nbd-" + std::to_string(::getpid());
    std::unique_ptr<ring::Reactor> reactor;
    front::MemoryVolume volume{kSize};
    std::unique_ptr<FrontEnd> front;
    std::thread thread;
    std::vector<std::string> log;

    void open(bool successors) {
        auto made = ring::Reactor::create({.entries = 256, .buffer_bytes = 8 << 20, .log = {}});
        ASSERT_TRUE(made.has_value());
        reactor = std::move(*made);
        volume.reactor = reactor.get();
        FrontEndOptions options;
        ::mkdir(directory.c_str(), 0711);
        options.run_dir = directory;
        options.volume = "web1";
        options.epoch = 7;
        options.secret = "s3cr3t";
        options.successors = successors;
        options.doors.push_back(
            door(*reactor, volume, {.name = "web1", .description = "", .size_bytes = kSize}));
        options.log = [this](const std::string& line) { log.push_back(line); };
        auto opened = FrontEnd::open(*reactor, std::move(options));
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        front = std::move(*opened);
        thread = std::thread([this] { reactor->run(); });
    }
    void TearDown() override {
        if (!thread.joinable()) return;
        reactor->post([this] {
            front->close(true, [this] {
                front.reset();
                reactor->stop();
            });
        });
        thread.join();
        EXPECT_EQ(reactor->buffers().free_bytes(), reactor->buffers().total_bytes()) << "a payload leaked";
        EXPECT_NE(::access((directory + "/nbd/web1-7-s3cr3t.sock").c_str(), F_OK), 0);
        ::rmdir((directory + "/nbd").c_str());
        ::rmdir(directory.c_str());
    }
    std::string uri() const { return "'nbd+unix:///web1?socket=" + front->path() + "'"; }
    int run(const std::string& command) const {
        return WEXITSTATUS(std::system((command + " >" + directory + ".log 2>&1").c_str()));
    }
    std::string said() const {
        std::ifstream file(directory + ".log");
        return {std::istreambuf_iterator<char>(file), {}};
    }
};

TEST_F(FrontEndTest, ForeignToolsLikeIt) {
    open(true);
    if (run("nbdinfo --version") != 0) FAIL() << "nbdinfo is expected (packaging/dev/packages.txt)";
    EXPECT_EQ(run("nbdinfo " + uri()), 0) << said();
    EXPECT_NE(said().find("can_multi_conn: true"), std::string::npos) << said();
    EXPECT_NE(said().find("base:allocation"), std::string::npos) << said();
    EXPECT_EQ(run("nbdinfo --list " + uri()), 0) << said();
    EXPECT_EQ(run("nbdinfo --map " + uri()), 0) << said();

    const std::string image = directory + ".raw";
    {
        Prng random(9);
        std::ofstream file(image, std::ios::binary);
        for (std::uint64_t i = 0; i < kSize / 8; ++i) {
            const std::uint64_t word = i % 4096 < 2048 ? random.next() : 0;
            file.write(reinterpret_cast<const char*>(&word), 8);
        }
    }
    EXPECT_EQ(run("nbdcopy --flush " + image + " " + uri()), 0) << said();
    EXPECT_GT(std::ranges::count(volume.seen, BlockOperation::flush), 0);
    EXPECT_EQ(run("qemu-img compare -f raw -F raw " + image + " " + uri()), 0) << said();
    EXPECT_EQ(run("nbdcopy --request-size=33554432 " + uri() + " " + image + ".back"), 0) << said();
    EXPECT_EQ(run("cmp " + image + " " + image + ".back"), 0) << said();
    EXPECT_EQ(run("qemu-img convert -n -f raw -O raw " + image + " " + uri()), 0) << said();
    EXPECT_EQ(run("nbdcopy --no-extents " + uri() + " " + image + ".back"), 0) << said();
    EXPECT_EQ(run("cmp " + image + " " + image + ".back"), 0) << said();
    EXPECT_EQ(
        run("qemu-io -f raw -c 'write -P 7 512 1536' -c 'write -z 8M 5M' -c 'discard 1M 64k' -c 'flush' "
            "-c 'write -f -P 9 3M 2M' -c 'read -P 7 512 1536' -c 'read -P 0 8M 5M' -c 'read -P 9 3M 2M' " +
            uri()),
        0)
        << said();
    EXPECT_EQ(said().find("failed"), std::string::npos) << said();
    for (const char* suffix : {".raw", ".raw.back", ".log"}) ::unlink((directory + suffix).c_str());
}

TEST_F(FrontEndTest, ErrorsReachTheClient) {
    open(true);
    if (run("qemu-io --version") != 0) FAIL() << "qemu-io is expected (packaging/dev/packages.txt)";
    volume.fail_at = 5 << 20;
    run("qemu-io -f raw -c 'write 5M 4k' -c 'read 4M 3M' " + uri());
    EXPECT_NE(said().find("write failed: Input/output error"), std::string::npos) << said();
    EXPECT_NE(said().find("read failed: Input/output error"), std::string::npos) << said();
    ::unlink((directory + ".log").c_str());
}

// H33: a second process finds the door closed.
TEST_F(FrontEndTest, OneProcessOnly) {
    open(false);
    if (run("nbdinfo --version") != 0) FAIL() << "nbdinfo is expected (packaging/dev/packages.txt)";
    EXPECT_EQ(run("nbdinfo " + uri()), 0) << said();
    EXPECT_NE(run("nbdinfo " + uri()), 0) << "another process, the first is dead: still another start";
    TearDown();
    thread = {};
    ASSERT_FALSE(log.empty());
    EXPECT_NE(log.back().find("is refused"), std::string::npos) << log.back();
    ::unlink((directory + ".log").c_str());
}

}  // namespace
}  // namespace gemel::nbd_socket
