#include <arpa/inet.h>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "adapters/fence_agents/agent.hpp"

namespace gemel::fence {
namespace {

namespace fs = std::filesystem;

class FenceTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "gemel-fence-XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
    }
    void TearDown() override { fs::remove_all(directory); }
    // An agent whose power state is a file; `body` runs for the actions off and on.
    Device agent(const std::string& body, Duration timeout = seconds(10)) {
        const fs::path path = directory / "fence_test";
        std::ofstream(path)
            << "#!/bin/bash\ncd " << directory.string()
            << "\nwhile IFS='=' read -r key value; do declare \"o_$key=$value\"; echo \"$key=$value\" "
               ">>seen; done\n"
               "case $o_action in\nstatus) [ \"$(cat power)\" = on ] && exit 0 || exit 2;;\n*)\n"
            << body << ";;\nesac\n";
        ::chmod(path.c_str(), 0755);
        std::ofstream(directory / "power") << "on";
        return {path.string(), {{"ip", "127.0.0.1"}, {"plug", "1"}}, {{"password", "s3cret"}}, timeout};
    }
    std::string read(const std::string& name) {
        std::ifstream file(directory / name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    fs::path directory;
};

TEST_F(FenceTest, OffIsVerifiedByStatus) {
    const auto device = agent("echo $o_action >power");
    EXPECT_EQ(run(device, Action::status).outcome, Outcome::on);
    EXPECT_EQ(run(device, Action::off).outcome, Outcome::off);
    EXPECT_EQ(run(device, Action::status).outcome, Outcome::off);
    EXPECT_EQ(run(device, Action::on).outcome, Outcome::on);
    EXPECT_NE(read("seen").find("action=off\npower_wait=0\nip=127.0.0.1\nplug=1\npassword=s3cret\n"),
              std::string::npos);
}

// H3: success of the agent while the machine is still on is no success.
TEST_F(FenceTest, AnAgentThatLiesIsFoundOut) {
    EXPECT_EQ(run(agent("exit 0"), Action::off).outcome, Outcome::on);
}

TEST_F(FenceTest, AFailingAgentFailsAndItsWordsCarryNoSecret) {
    const auto result =
        run(agent("echo first; echo \"login with $o_password denied\" >&2; exit 1"), Action::off);
    EXPECT_EQ(result.outcome, Outcome::failed);
    EXPECT_NE(result.detail.find("login with *** denied"), std::string::npos) << result.detail;
    EXPECT_EQ(result.detail.find("s3cret"), std::string::npos);
    EXPECT_EQ(run(agent("kill -9 $$"), Action::off).outcome, Outcome::failed);
}

TEST_F(FenceTest, ATimeOutKillsTheWholeGroup) {
    auto device = agent("sleep 1000 & echo $! >child; wait", milliseconds(500));
    const auto result = run(device, Action::off);
    EXPECT_EQ(result.outcome, Outcome::timed_out);
    const pid_t child = std::atoi(read("child").c_str());
    ASSERT_GT(child, 0);
    // Killed with its group; gone as soon as whoever inherited it has collected it (or a zombie until then).
    bool gone = false;
    for (int i = 0; i < 500 && !gone; ++i) {
        std::ifstream stat(fmt::format("/proc/{}/stat", child));
        std::string text{std::istreambuf_iterator<char>(stat), {}};
        gone =
            text.empty() || text.find(") Z ") != std::string::npos || text.find(") X ") != std::string::npos;
        if (!gone) ::poll(nullptr, 0, 10);
    }
    EXPECT_TRUE(gone);
}

TEST_F(FenceTest, WhatCannotBeRunOrPassedOnIsSaid) {
    EXPECT_NE(run({"fence_nonexistent", {}, {}}, Action::status).detail.find("cannot be run"),
              std::string::npos);
    auto device = agent("exit 0");
    device.options["ip"] = "1\naction=on";
    EXPECT_EQ(run(device, Action::off).outcome, Outcome::failed);
    EXPECT_TRUE(read("seen").empty());
}

// A BMC as real as it gets here: OpenIPMI's simulator, reached by fence_ipmilan.
class BmcTest : public FenceTest {
  protected:
    void SetUp() override {
        FenceTest::SetUp();
        port = free_udp_port();
        std::ofstream(directory / "power") << "1";
        std::ofstream(directory / "chassis")
            << "#!/bin/sh\ncd " << directory.string()
            << "\ncase \"$*\" in\n*'get power'*) echo \"power:$(cat power)\";;\n"
               "*'set power 0'*) echo 0 >power;;\n*'set power 1'*) echo 1 >power;;\nesac\n";
        ::chmod((directory / "chassis").c_str(), 0755);
        std::ofstream(directory / "lan.conf") << fmt::format(
            "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {}\n    priv_limit admin\n"
            "    allowed_auths_callback none md2 md5 straight\n    allowed_auths_user none md2 md5 straight\n"
            "    allowed_auths_operator none md2 md5 straight\n    allowed_auths_admin none md2 md5 "
            "straight\n"
            "    guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \"{}\"\n"
            "  user 1 true \"\" \"test\" user 10 none md2 md5 straight\n"
            "  user 2 true \"gemel\" \"s3cret\" admin 10 none md2 md5 straight\n",
            port, (directory / "chassis").string());
        std::ofstream(directory / "sim.emu")
            << "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\n"
               "mc_enable 0x20\n";
        fs::create_directories(directory / "state");
        simulator = ::fork();
        if (simulator == 0) {
            ::execlp("ipmi_sim", "ipmi_sim", "-n", "-c", (directory / "lan.conf").c_str(), "-f",
                     (directory / "sim.emu").c_str(), "-s", (directory / "state").c_str(), nullptr);
            ::_exit(127);
        }
    }
    void TearDown() override {
        ::kill(simulator, SIGKILL);
        ::waitpid(simulator, nullptr, 0);
        FenceTest::TearDown();
    }
    static int free_udp_port() {
        const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
        ::close(fd);
        return ntohs(address.sin_port);
    }
    Device device(const std::string& password) const {
        return {"fence_ipmilan",
                {{"ip", "127.0.0.1"},
                 {"ipport", std::to_string(port)},
                 {"lanplus", "1"},
                 {"cipher", "3"},
                 {"username", "gemel"}},
                {{"password", password}},
                seconds(20)};
    }
    pid_t simulator = -1;
    int port = 0;
};

TEST_F(BmcTest, FenceIpmilanPowersOffAndOn) {
    auto result = run(device("s3cret"), Action::status);
    for (int i = 0; i < 20 && result.outcome == Outcome::failed; ++i)
        result = run(device("s3cret"), Action::status);
    ASSERT_EQ(result.outcome, Outcome::on) << result.detail;
    result = run(device("s3cret"), Action::off);
    ASSERT_EQ(result.outcome, Outcome::off) << result.detail;
    EXPECT_EQ(read("power").substr(0, 1), "0");
    EXPECT_EQ(run(device("s3cret"), Action::off).outcome, Outcome::off);  // already off
    EXPECT_EQ(run(device("s3cret"), Action::on).outcome, Outcome::on);
    const auto denied = run(device("wrong"), Action::off);
    EXPECT_EQ(denied.outcome, Outcome::failed);
    EXPECT_EQ(denied.detail.find("wrong"), std::string::npos) << denied.detail;
    EXPECT_EQ(read("power").substr(0, 1), "1");
}

}  // namespace
}  // namespace gemel::fence
