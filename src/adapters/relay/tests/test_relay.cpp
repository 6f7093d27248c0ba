// The way of a guest's memory, over loopback: source's tunnel, destination's gate, what stands behind it.
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <poll.h>
#include <sys/socket.h>
#include <thread>

#include <gtest/gtest.h>

#include "adapters/relay/gate.hpp"
#include "adapters/relay/tunnel.hpp"

namespace gemel::relay {
namespace {

constexpr const char* kGuest = "11111111-2222-3333-4444-555555555555";
constexpr const char* kSecret = "00112233445566778899aabbccddeeff";

bool comes_true(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        ::poll(nullptr, 0, 5);
    }
    return true;
}

bool is_closed(const OwnedFd& socket) {
    return comes_true([&] {
        char byte = 0;
        return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
    });
}

class Relays : public testing::Test {
  protected:
    void SetUp() override {
        ::signal(SIGPIPE, SIG_IGN);  // as clusterd does
        std::string made = "/tmp/gemel-relay-XXXXXX";
        ASSERT_NE(::mkdtemp(made.data()), nullptr);
        directory = made;
        libvirtd = std::move(*listen_unix(directory + "/libvirt-sock"));
        qemu = std::move(*listen_unix(directory + "/waits.sock"));
        gate = std::move(*MigrationGate::open_on({"127.0.0.1"}, directory + "/libvirt-sock"));
        gate->open(kGuest, kSecret, directory + "/waits.sock");
    }
    void TearDown() override {
        gate.reset();
        std::filesystem::remove_all(directory);
    }
    OwnedFd accepted(const OwnedFd& listening) const {
        return OwnedFd(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    TunnelOptions options(const std::string& secret = kSecret) const {
        return {directory + "/tunnel", gate->addresses(), kGuest, secret};
    }
    OwnedFd says(const std::string& text) const {
        auto socket = connect_tcp(gate->addresses(), std::chrono::seconds(2));
        EXPECT_TRUE(socket);
        EXPECT_TRUE(write_all(socket->get(), text));
        return std::move(*socket);
    }

    std::string directory;
    OwnedFd libvirtd;
    OwnedFd qemu;
    std::unique_ptr<MigrationGate> gate;
};

TEST_F(Relays, a_guests_memory_arrives_whole_and_ends_are_passed_on) {
    const auto tunnel = MigrationTunnel::dig(options());
    ASSERT_TRUE(tunnel) << tunnel.error().message;
    OwnedFd source = std::move(*connect_unix((*tunnel)->qemu_socket()));
    const OwnedFd destination = accepted(qemu);
    constexpr std::size_t kBytes = std::size_t{64} << 20;
    std::thread sender([&] {
        std::string block(std::size_t{1} << 20, '\0');
        for (std::size_t i = 0; i < kBytes / block.size(); ++i) {
            for (std::size_t k = 0; k < block.size(); ++k) block[k] = static_cast<char>(i * 7 + k * 13);
            EXPECT_TRUE(write_all(source.get(), block));
        }
        ::shutdown(source.get(), SHUT_WR);
    });
    std::size_t seen = 0;
    std::size_t wrong = 0;
    std::array<char, 65536> chunk{};
    for (;;) {
        const ssize_t got = ::recv(destination.get(), chunk.data(), chunk.size(), 0);
        if (got <= 0) break;
        for (ssize_t i = 0; i < got; ++i, ++seen) {
            const std::size_t block = seen >> 20;
            const std::size_t at = seen & ((std::size_t{1} << 20) - 1);
            wrong += chunk[static_cast<std::size_t>(i)] != static_cast<char>(block * 7 + at * 13);
        }
    }
    sender.join();
    EXPECT_EQ(seen, kBytes);
    EXPECT_EQ(wrong, 0U);
    // the other way still works after the first has ended
    EXPECT_TRUE(write_all(destination.get(), "loaded\n"));
    const auto answer = read_line(source.get(), 16, std::chrono::seconds(5));
    ASSERT_TRUE(answer);
    EXPECT_EQ(*answer, "loaded");
}

TEST_F(Relays, libvirts_words_go_to_libvirtd) {
    const auto tunnel = MigrationTunnel::dig(options());
    ASSERT_TRUE(tunnel);
    { const OwnedFd probe = accepted(libvirtd); }  // digging tried the way
    const OwnedFd source = std::move(*connect_unix((*tunnel)->libvirt_socket()));
    const OwnedFd there = accepted(libvirtd);
    ASSERT_TRUE(write_all(source.get(), "prepare\n"));
    EXPECT_EQ(*read_line(there.get(), 16, std::chrono::seconds(5)), "prepare");
}

TEST_F(Relays, who_does_not_know_the_secret_or_the_guest_is_turned_away) {
    EXPECT_FALSE(MigrationTunnel::dig(options("00112233445566778899aabbccddeefe")));
    EXPECT_FALSE(MigrationTunnel::dig(options("")));
    const std::string guest = kGuest;
    const std::string secret = kSecret;
    for (const std::string& line :
         {"gemel-migration other " + secret + " qemu\n",
          "gemel-migration " + guest + " " + secret + " etcd\n",
          "gemel-migration " + guest + " " + secret + " qemu more\n", "GET / " + guest + " " + secret + "\n",
          std::string(1000, 'x') + "\n", std::string("\n")}) {
        const OwnedFd client = says(line);
        EXPECT_TRUE(is_closed(client)) << line.substr(0, 60);
    }
    gate->close(kGuest);
    EXPECT_FALSE(MigrationTunnel::dig(options()));
}

TEST_F(Relays, closing_the_door_ends_what_goes_through_it) {
    const auto tunnel = MigrationTunnel::dig(options());
    ASSERT_TRUE(tunnel);
    const OwnedFd source = std::move(*connect_unix((*tunnel)->qemu_socket()));
    const OwnedFd destination = accepted(qemu);
    ASSERT_TRUE(write_all(source.get(), "x\n"));
    ASSERT_TRUE(read_line(destination.get(), 4, std::chrono::seconds(5)));
    gate->close(kGuest);
    EXPECT_TRUE(is_closed(source));
    EXPECT_TRUE(is_closed(destination));
    const OwnedFd late = std::move(*connect_unix((*tunnel)->qemu_socket()));
    EXPECT_TRUE(is_closed(late)) << "nobody takes it: told at once";
}

TEST_F(Relays, a_gate_that_ends_ends_its_connections_and_the_next_address_is_tried) {
    auto with_dead = options();
    with_dead.gate = "127.0.0.1:1," + with_dead.gate;
    auto tunnel = MigrationTunnel::dig(with_dead);
    ASSERT_TRUE(tunnel) << tunnel.error().message;
    const OwnedFd source = std::move(*connect_unix((*tunnel)->qemu_socket()));
    const OwnedFd destination = accepted(qemu);
    gate.reset();
    EXPECT_TRUE(is_closed(source));
    tunnel->reset();
    EXPECT_FALSE(std::filesystem::exists(directory + "/tunnel")) << "it leaves nothing behind";
}

}  // namespace
}  // namespace gemel::relay
