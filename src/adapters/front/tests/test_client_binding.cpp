#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/front/client_binding.hpp"

namespace gemel::front {
namespace {

struct Binding : ::testing::Test {
    std::string file = ::testing::TempDir() + "gemel-binding-" + std::to_string(::getpid()) + ".client";
    pid_t child = -1;
    int stop[2] = {-1, -1};

    void SetUp() override {
        ASSERT_EQ(::pipe(stop), 0);
        child = ::fork();
        if (child == 0) {
            char byte = 0;
            ::close(stop[1]);
            [[maybe_unused]] const auto ended = ::read(stop[0], &byte, 1);
            ::_exit(0);
        }
        ::close(stop[0]);
    }
    void end_child() {
        if (child < 0) return;
        ::close(stop[1]);
        ::waitpid(child, nullptr, 0);
        child = -1;
    }
    void TearDown() override {
        end_child();
        ::unlink(file.c_str());
    }
};

TEST_F(Binding, TheFirstProcessOwnsTheSession) {
    ClientBinding binding(file, false);
    EXPECT_EQ(binding.pid(), 0);
    EXPECT_TRUE(binding.admit(*process_of(child), true));
    EXPECT_TRUE(binding.admit(*process_of(child), true)) << "another connection, or a reconnect";
    const auto other = binding.admit(*process_of(::getpid()), true);
    ASSERT_FALSE(other.has_value());
    EXPECT_EQ(other.error().code, ErrorCode::permission_denied);
    EXPECT_EQ(binding.pid(), child);
}

// H33, across a restart of the daemon
TEST_F(Binding, SurvivesARestart) {
    ASSERT_TRUE(ClientBinding(file, false).admit(*process_of(child), true));
    ClientBinding again(file, false);
    EXPECT_EQ(again.pid(), child);
    EXPECT_FALSE(again.admit(*process_of(::getpid()), true));
    EXPECT_TRUE(again.admit(*process_of(child), true));
    end_child();
    EXPECT_FALSE(again.admit(*process_of(::getpid()), true)) << "an epoch is one start of one guest";
}

TEST_F(Binding, AnExportHasOneClientAfterTheOther) {
    ClientBinding binding(file, true);
    ASSERT_TRUE(binding.admit(*process_of(child), true));
    EXPECT_FALSE(binding.admit(*process_of(::getpid()), true)) << "the former is connected";
    EXPECT_TRUE(binding.admit(*process_of(::getpid()), false)) << "it lives, but has gone";
    EXPECT_TRUE(binding.admit(*process_of(child), false));
    end_child();
    EXPECT_TRUE(binding.admit(*process_of(::getpid()), true));
}

TEST_F(Binding, APidUsedAgainIsAnotherProcess) {
    ClientBinding binding(file, false);
    auto process = *process_of(child);
    ASSERT_TRUE(binding.admit(process, true));
    ++process.start_time;
    EXPECT_FALSE(binding.admit(process, true));
}

TEST(PeerProcess, IsTheOneThatConnected) {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const auto process = peer_process(fds[0]);
    ASSERT_TRUE(process.has_value());
    EXPECT_EQ(process->pid, ::getpid());
    EXPECT_GT(process->start_time, 0U);
    ::close(fds[0]);
    ::close(fds[1]);
}

}  // namespace
}  // namespace gemel::front
