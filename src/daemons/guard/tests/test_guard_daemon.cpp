// The daemon with real processes: children of the test stand for QEMU.
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <malloc.h>
#include <mutex>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "adapters/system/boot_clock.hpp"
#include "daemons/guard/guard_daemon.hpp"
#include "daemons/guard/locked_memory.hpp"

namespace gemel::guard {
namespace {

using nlohmann::json;

bool within(std::chrono::milliseconds deadline, const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    std::mutex mutex;
    std::condition_variable poll;
    std::unique_lock lock(mutex);
    while (!condition() && std::chrono::steady_clock::now() < end)
        poll.wait_for(lock, std::chrono::milliseconds(5));
    return condition();
}

class Child {
  public:
    Child() : pid_(::fork()) {
        if (pid_ == 0) {
            for (;;) ::pause();
        }
    }
    ~Child() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ProcessId id() const { return *identify(pid_); }

  private:
    pid_t pid_;
};

class GuardDaemonTest : public ::testing::Test {
  protected:
    GuardDaemonTest() {
        char pattern[] = "/tmp/gemel-guard-XXXXXX";
        directory_ = ::mkdtemp(pattern);
        start();
    }
    ~GuardDaemonTest() override {
        stop();
        std::filesystem::remove_all(directory_);
    }
    void start() {
        ha::GuardConfig config;
        config.kill_after = milliseconds(300);
        daemon_ = std::make_unique<GuardDaemon>(directory_, config);
        const auto started = daemon_->start();
        ASSERT_TRUE(started) << started.error().message;
        thread_ = std::thread([this] { daemon_->run(); });
        client_ =
            std::make_unique<ipc::ControlClient>(directory_ + "/guard.sock", "tool", ipc::ClientHandlers{});
        ASSERT_TRUE(within(std::chrono::seconds(5), [this] { return client_->connected(); }));
    }
    void stop() {
        client_.reset();
        daemon_->stop();
        thread_.join();
        daemon_.reset();
    }
    json ask(json request) {
        std::mutex mutex;
        std::condition_variable answered;
        json answer;
        client_->request(std::move(request), seconds(5), [&](Result<json> result) {
            const std::scoped_lock lock(mutex);
            answer = result ? json{{"ok", *result}} : json{{"error", result.error().message}};
            answered.notify_one();
        });
        std::unique_lock lock(mutex);
        EXPECT_TRUE(answered.wait_for(lock, std::chrono::seconds(10), [&] { return !answer.is_null(); }));
        return answer;
    }
    void register_child(const Child& child, bool regrant_possible) {
        const auto answer = ask({{"do", "register"},
                                 {"guest", guest_.to_string()},
                                 {"name", "web1"},
                                 {"pid", child.id().pid},
                                 {"start_time", child.id().start_time},
                                 {"regrant_possible", regrant_possible},
                                 {"volumes", {{{"volume", volume_.to_string()}, {"epoch", 3}}}}});
        ASSERT_TRUE(answer.contains("ok")) << answer.dump();
    }
    void lease(Duration lasts) {
        const Instant until = boot_now() + lasts;
        const auto answer = ask({{"do", "lease"},
                                 {"volume", volume_.to_string()},
                                 {"epoch", 3},
                                 {"until_ns", static_cast<std::uint64_t>(until.nanoseconds_since_boot)}});
        ASSERT_TRUE(answer.contains("ok")) << answer.dump();
    }
    bool becomes(const ProcessId& process, ha::SeenDomain wanted) {
        return within(std::chrono::seconds(10), [&] { return look(process) == wanted; });
    }

    std::string directory_;
    std::unique_ptr<GuardDaemon> daemon_;
    std::thread thread_;
    std::unique_ptr<ipc::ControlClient> client_;
    GuestId guest_ = GuestId::from_random(1, 2);
    VolumeId volume_ = VolumeId::from_random(3, 4);
};

TEST_F(GuardDaemonTest, ALapsedLeaseFreezesAndAFreshOneContinues) {
    const Child child;
    lease(milliseconds(300));
    register_child(child, false);
    EXPECT_TRUE(becomes(child.id(), ha::SeenDomain::paused));
    lease(seconds(60));
    EXPECT_TRUE(becomes(child.id(), ha::SeenDomain::running));
}

TEST_F(GuardDaemonTest, LostOwnershipKills) {
    const Child child;
    const ProcessId process = child.id();
    lease(seconds(60));
    register_child(child, false);
    ask({{"do", "ownership_lost"}, {"volume", volume_.to_string()}, {"epoch", 3}});
    EXPECT_TRUE(becomes(process, ha::SeenDomain::gone));
}

TEST_F(GuardDaemonTest, WhereAnotherNodeCouldBeGrantedALapsedGuestIsKilled) {
    const Child child;
    const ProcessId process = child.id();
    lease(milliseconds(100));
    register_child(child, true);
    EXPECT_TRUE(becomes(process, ha::SeenDomain::gone));
}

TEST_F(GuardDaemonTest, ARestartedGuardKnowsItsGuests) {
    const Child child;
    lease(milliseconds(1500));
    register_child(child, false);
    stop();
    start();
    EXPECT_TRUE(becomes(child.id(), ha::SeenDomain::paused)) << "nobody registered it again";
}

// clusterd registers a guest before it starts it: there is no moment in which it runs unguarded.
TEST_F(GuardDaemonTest, AGuestRegisteredBeforeItsStartIsFoundByItsUuid) {
    const auto answer = ask({{"do", "register"},
                             {"guest", guest_.to_string()},
                             {"name", "web1"},
                             {"pid", 0},
                             {"start_time", 0},
                             {"volumes", {{{"volume", volume_.to_string()}, {"epoch", 3}}}}});
    ASSERT_TRUE(answer.contains("ok")) << answer.dump();
    int blocked[2];
    ASSERT_EQ(::pipe(blocked), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::dup2(blocked[0], 0);
        ::execl("/bin/sh", "qemu-system-test", "-c", "read x", "sh", "-uuid", guest_.to_string().c_str(),
                nullptr);
        ::_exit(127);
    }
    const ProcessId process = *identify(pid);
    EXPECT_TRUE(becomes(process, ha::SeenDomain::paused)) << "it has no lease";
    lease(seconds(60));
    EXPECT_TRUE(becomes(process, ha::SeenDomain::running));
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ::close(blocked[0]);
    ::close(blocked[1]);
}

TEST_F(GuardDaemonTest, ALeaseByNameCountsAlsoWhenItCameBeforeTheGuest) {
    const Child child;
    const Instant until = boot_now() + milliseconds(1500);
    const auto by_name = [&](Instant at) {
        return ask({{"do", "lease"},
                    {"volume", "web1-root"},
                    {"epoch", 3},
                    {"until_ns", static_cast<std::uint64_t>(at.nanoseconds_since_boot)}});
    };
    ASSERT_TRUE(by_name(until).contains("ok"));
    ask({{"do", "register"},
         {"guest", guest_.to_string()},
         {"name", "web1"},
         {"pid", child.id().pid},
         {"start_time", child.id().start_time},
         {"volumes", {{{"volume", volume_.to_string()}, {"name", "web1-root"}, {"epoch", 3}}}}});
    EXPECT_EQ(ask({{"do", "status"}})["ok"]["guests"][0]["lease_until_ns"], until.nanoseconds_since_boot);
    EXPECT_TRUE(becomes(child.id(), ha::SeenDomain::paused));
    ASSERT_TRUE(by_name(boot_now() + seconds(60)).contains("ok"));
    EXPECT_TRUE(becomes(child.id(), ha::SeenDomain::running));
}

TEST_F(GuardDaemonTest, AReusedPidIsNotTouched) {
    const Child child;
    ProcessId other = child.id();
    other.start_time += 1;
    EXPECT_FALSE(send_signal(other, SIGKILL));
    EXPECT_EQ(look(other), ha::SeenDomain::gone);
    EXPECT_EQ(look(child.id()), ha::SeenDomain::running);
}

TEST_F(GuardDaemonTest, BadRequestsAreAnswered) {
    EXPECT_NE(ask({{"do", "dance"}})["error"].get<std::string>().find("is unknown"), std::string::npos);
    EXPECT_NE(ask({{"do", "ownership_lost"}, {"volume", "x"}, {"epoch", 1}})["error"].get<std::string>().find(
                  "not an id"),
              std::string::npos);
    EXPECT_NE(
        ask({{"do", "register"}, {"guest", guest_.to_string()}})["error"].get<std::string>().find("pid"),
        std::string::npos);
}

// Its own fixture: the memory is reserved before anything is started, as in main().
class ReservedMemoryTest : public GuardDaemonTest {
  protected:
    struct Reserve {
        Reserve() { reserved = reserve_memory(); }
        Status reserved;
    };
    static Status reserved() {
        static const Reserve kOnce;
        return kOnce.reserved;
    }
    ReservedMemoryTest() {
        stop();
        if (const auto done = reserved(); !done) {
            EXPECT_NE(done.error().code, ErrorCode::out_of_space) << done.error().message;
        }
        start();
    }
};

TEST_F(ReservedMemoryTest, SteadyWorkAsksNoMemoryOfTheKernel) {
    const Child qemu;
    register_child(qemu, false);
    const auto work = [&](int rounds) {
        for (int i = 0; i < rounds; ++i) {
            lease(seconds(60));
            ASSERT_TRUE(ask({{"do", "status"}}).contains("ok"));
        }
    };
    work(100);
    const auto before = ::mallinfo2();
    rusage then{};
    ASSERT_EQ(::getrusage(RUSAGE_SELF, &then), 0);
    work(1000);
    const auto after = ::mallinfo2();
    rusage now_used{};
    ASSERT_EQ(::getrusage(RUSAGE_SELF, &now_used), 0);
    EXPECT_EQ(after.arena, before.arena);
    EXPECT_EQ(after.hblkhd, before.hblkhd);
    EXPECT_LT(now_used.ru_minflt - then.ru_minflt, 64) << "pages that were not there before";
    EXPECT_GE(before.arena, kReserveBytes);
}

}  // namespace
}  // namespace gemel::guard
