#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/disk/image_file.hpp"

namespace gemel::disk {
namespace {

struct ImageLock : ::testing::Test {
    std::string path = ::testing::TempDir() + "gemel-lock-" + std::to_string(::getpid()) + ".img";
    void SetUp() override { ASSERT_TRUE(make_backing(path, 1 << 20, false).has_value()); }
    void TearDown() override { ::unlink(path.c_str()); }

    // exit status and what was said on both outputs
    std::pair<int, std::string> run(const std::string& command) const {
        const std::string log = path + ".log";
        const int status = std::system((command + " >" + log + " 2>&1").c_str());
        std::stringstream text;
        text << std::ifstream(log).rdbuf();
        ::unlink(log.c_str());
        return {WEXITSTATUS(status), text.str()};
    }
};

TEST_F(ImageLock, KeepsASecondOpenerOut) {
    auto first = open_exclusively(path);
    ASSERT_TRUE(first.has_value() && first->has_value());
    auto second = open_exclusively(path);
    ASSERT_TRUE(second.has_value());
    EXPECT_FALSE(second->has_value()) << "held: come back later";
    close_file(**first);
    second = open_exclusively(path);
    ASSERT_TRUE(second.has_value() && second->has_value());
    close_file(**second);
}

TEST_F(ImageLock, AFailedAttemptLeavesTheHoldersLockAlone) {
    auto first = open_exclusively(path);
    ASSERT_TRUE(first.has_value() && first->has_value());
    for (int i = 0; i < 3; ++i) EXPECT_FALSE(open_exclusively(path)->has_value());
    close_file(**first);
}

TEST_F(ImageLock, QemuIsRefusedWhileItIsHeld) {
    if (run("qemu-img --version").first != 0) FAIL() << "qemu-img is expected (packaging/dev/packages.txt)";
    auto held = open_exclusively(path);
    ASSERT_TRUE(held.has_value() && held->has_value());
    const auto [status, said] = run("qemu-io -r -f raw -c 'read 0 512' " + path);
    EXPECT_NE(status, 0);
    EXPECT_NE(said.find("Is another process using the image"), std::string::npos) << said;
    EXPECT_NE(run("qemu-io -f raw -c 'write 0 512' " + path).first, 0);
    close_file(**held);
    EXPECT_EQ(run("qemu-io -r -f raw -c 'read 0 512' " + path).first, 0);
    EXPECT_EQ(run("qemu-io -f raw -c 'write 0 512' " + path).first, 0);
}

TEST_F(ImageLock, WhatQemuHoldsIsNotTaken) {
    if (run("qemu-img --version").first != 0) FAIL() << "qemu-img is expected (packaging/dev/packages.txt)";
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        ::dup2(ready[0], 0);  // qemu-io ends when this pipe does
        ::close(ready[1]);
        const int log = ::open((path + ".log").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
        ::dup2(log, 1);
        ::execlp("qemu-io", "qemu-io", "-f", "raw", path.c_str(), nullptr);
        ::_exit(127);
    }
    ::close(ready[0]);
    bool held = false;
    for (int i = 0; i < 500 && !held; ++i) {
        auto tried = open_exclusively(path);
        ASSERT_TRUE(tried.has_value());
        held = !tried->has_value();
        if (!held) close_file(**tried);
        ::poll(nullptr, 0, 10);  // poll interval
    }
    EXPECT_TRUE(held);
    ::close(ready[1]);
    ::waitpid(child, nullptr, 0);
    ::unlink((path + ".log").c_str());
}

TEST_F(ImageLock, MakeBackingRefusesWhatIsThere) {
    const auto again = make_backing(path, 1 << 20, false);
    ASSERT_FALSE(again.has_value());
    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
    const auto nowhere = make_backing(path + "/x", 1 << 20, false);
    EXPECT_FALSE(nowhere.has_value());
    const auto folder = open_exclusively(::testing::TempDir());
    EXPECT_FALSE(folder.has_value());
}

}  // namespace
}  // namespace gemel::disk
