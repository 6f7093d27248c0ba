// FrontEndDriver: the front end's side of a vhost-user connection without QEMU: shares memory, sets up one
// queue, kicks and waits. The ring's driver side is core/vhost's test Guest. For tests; blocking, one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/vhost/session.hpp"
#include "core/vhost/tests/guest.hpp"

namespace gemel::vhost_user {

struct Shared {  // a sealed memfd
    explicit Shared(std::size_t size, bool sealed = true);
    ~Shared();
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;
    int fd;
    std::size_t bytes;
    std::byte* base;
};

struct DriverOptions {
    bool packed = false;
    std::uint16_t size = 64;
    bool event_index = true;
    bool flush = true;  // the guest knows FLUSH
};

// What outlives a connection: memory, ring, events, in-flight records.
class FrontEndDriver {
  public:
    explicit FrontEndDriver(DriverOptions options);
    ~FrontEndDriver();
    FrontEndDriver(const FrontEndDriver&) = delete;
    FrontEndDriver& operator=(const FrontEndDriver&) = delete;

    // takes the socket; an older one is closed
    void use(int fd);
    void disconnect();
    // Everything up to a running queue. false: the other side ended the connection.
    bool start();

    bool negotiate();
    // With REPLY_ACK: what was answered; none: the connection ended.
    std::optional<std::uint64_t> share_memory(const Shared* other = nullptr,
                                              std::uint64_t user_address = vhost::Guest::kUser);
    bool take_in_flight();
    std::optional<std::uint64_t> set_up_queue(int kick_fd);
    // kick and call once more, with the same descriptors
    void send_events();
    std::optional<std::uint64_t> log(bool on);
    // GET_VRING_BASE; receive_base() waits for the answer
    void ask_base();
    std::optional<std::uint32_t> receive_base(int timeout_ms);
    std::optional<std::uint64_t> number(std::uint32_t request);
    std::optional<std::vector<std::byte>> config();

    void kick();
    // makes the call's eventfd as full as it gets, and writing to it wait
    void fill_call();
    // false: nothing in that time
    bool wait_for_call(int timeout_ms = 10000);
    // waits until that many more entries were given back
    std::vector<std::pair<std::uint16_t, std::uint32_t>> reap(std::size_t count, int timeout_ms = 10000);
    // the other side has closed
    bool ended(int timeout_ms = 10000);

    vhost::Guest& guest() { return *guest_; }
    Shared& log_memory() { return log_; }

    // A request of a block device in guest memory, data at kData + slot * 1 MiB where it needs any.
    std::optional<std::uint16_t> add(std::uint32_t type, std::uint64_t sector, std::uint32_t bytes,
                                     std::size_t slot, std::uint32_t pieces = 1, bool indirect = false);
    std::byte* data(std::size_t slot) { return guest_->raw() + data_at(slot); }
    std::uint8_t status(std::size_t slot) const { return std::to_integer<std::uint8_t>(*status_at(slot)); }

    static constexpr std::uint32_t kSlotBytes = 256U << 10;
    static constexpr std::size_t kSlots = 24;

  private:
    static std::uint64_t data_at(std::size_t slot) { return vhost::Guest::kData + slot * kSlotBytes; }
    static std::uint64_t header_at(std::size_t slot) { return 0xc000 + slot * 64; }
    std::byte* status_at(std::size_t slot) const { return guest_->raw() + header_at(slot) + 48; }
    bool send(std::uint32_t request, std::span<const std::uint64_t> words, std::vector<int> fds = {},
              bool needs_reply = false);
    bool receive(std::vector<std::byte>& payload, int* fd, int timeout_ms);
    std::optional<std::uint64_t> acknowledged(std::uint32_t request, std::span<const std::uint64_t> words,
                                              std::vector<int> fds = {});

    DriverOptions options_;
    Shared memory_;
    Shared log_;
    std::unique_ptr<vhost::Guest> guest_;
    int socket_ = -1;
    int kick_;
    int call_;
    int in_flight_ = -1;
    std::array<std::uint64_t, 3> in_flight_words_{};
    std::uint64_t features_ = 0;
};

}  // namespace gemel::vhost_user
