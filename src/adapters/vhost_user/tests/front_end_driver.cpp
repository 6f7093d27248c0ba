#include "adapters/vhost_user/tests/front_end_driver.hpp"

#include <algorithm>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/vhost/tests/message_numbers.hpp"

namespace gemel::vhost_user {
namespace {

using namespace vhost;  // NOLINT: the numbers of messages

int milliseconds_left(std::chrono::steady_clock::time_point until) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    return static_cast<int>(std::max<std::int64_t>(left.count(), 0));
}

bool readable(int fd, int timeout_ms) {
    pollfd one{fd, POLLIN, 0};
    return ::poll(&one, 1, timeout_ms) == 1;
}

}  // namespace

Shared::Shared(std::size_t size, bool sealed)
    : fd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING)), bytes(size) {
    const bool sized = ::ftruncate(fd, static_cast<off_t>(size)) == 0;
    if (sealed) ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    base = sized && mapped != MAP_FAILED ? static_cast<std::byte*>(mapped) : nullptr;
}

Shared::~Shared() {
    ::munmap(base, bytes);
    ::close(fd);
}

FrontEndDriver::FrontEndDriver(DriverOptions options)
    : options_(options),
      memory_(vhost::Guest::kBytes),
      log_(64U << 10),
      guest_(std::make_unique<vhost::Guest>(options.packed, options.size, options.event_index, memory_.base)),
      kick_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      call_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

FrontEndDriver::~FrontEndDriver() {
    disconnect();
    for (const int fd : {kick_, call_, in_flight_}) {
        if (fd >= 0) ::close(fd);
    }
}

void FrontEndDriver::disconnect() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
}

void FrontEndDriver::use(int fd) {
    disconnect();
    socket_ = fd;
}

bool FrontEndDriver::start() {
    return negotiate() && share_memory() == 0 && take_in_flight() && set_up_queue(kick_) == 0;
}

// ---- messages ----

bool FrontEndDriver::send(std::uint32_t request, std::span<const std::uint64_t> words, std::vector<int> fds,
                          bool needs_reply) {
    std::vector<std::byte> bytes(12 + words.size_bytes());
    const std::uint32_t header[3] = {request, 1U | (needs_reply ? 8U : 0U),
                                     static_cast<std::uint32_t>(words.size_bytes())};
    std::memcpy(bytes.data(), header, sizeof header);
    if (!words.empty()) std::memcpy(bytes.data() + 12, words.data(), words.size_bytes());
    iovec vector{bytes.data(), bytes.size()};
    alignas(8) std::array<char, 256> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
        cmsghdr* one = CMSG_FIRSTHDR(&message);
        one->cmsg_level = SOL_SOCKET;
        one->cmsg_type = SCM_RIGHTS;
        one->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
        std::memcpy(CMSG_DATA(one), fds.data(), fds.size() * sizeof(int));
    }
    return ::sendmsg(socket_, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

bool FrontEndDriver::receive(std::vector<std::byte>& payload, int* fd, int timeout_ms) {
    if (!readable(socket_, timeout_ms)) return false;
    std::uint32_t header[3] = {};
    iovec vector{header, sizeof header};
    alignas(8) std::array<char, 64> control{};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(socket_, &message, MSG_WAITALL) != sizeof header) return false;
    const cmsghdr* one = CMSG_FIRSTHDR(&message);
    if (fd != nullptr && one != nullptr) std::memcpy(fd, CMSG_DATA(one), sizeof *fd);
    payload.resize(header[2]);
    return payload.empty() || ::recv(socket_, payload.data(), payload.size(), MSG_WAITALL) ==
                                  static_cast<ssize_t>(payload.size());
}

std::optional<std::uint64_t> FrontEndDriver::number(std::uint32_t request) {
    std::vector<std::byte> payload;
    std::uint64_t value = 0;
    if (!send(request, {}) || !receive(payload, nullptr, 10000) || payload.size() != sizeof value) return {};
    std::memcpy(&value, payload.data(), sizeof value);
    return value;
}

std::optional<std::uint64_t> FrontEndDriver::acknowledged(std::uint32_t request,
                                                          std::span<const std::uint64_t> words,
                                                          std::vector<int> fds) {
    std::vector<std::byte> payload;
    std::uint64_t value = 0;
    if (!send(request, words, std::move(fds), true) || !receive(payload, nullptr, 10000)) return {};
    if (payload.size() != sizeof value) return {};
    std::memcpy(&value, payload.data(), sizeof value);
    return value;
}

bool FrontEndDriver::negotiate() {
    const auto offered = number(kGetFeatures);
    const auto protocol = number(kGetProtocolFeatures);
    if (!offered || !protocol) return false;
    features_ = *offered & ~vhost::kFeatureLogAll;
    if (!options_.packed) features_ &= ~vhost::kFeaturePacked;
    if (!options_.event_index) features_ &= ~vhost::kFeatureEventIndex;
    if (!options_.flush) features_ &= ~vhost::kFeatureFlush;
    const std::uint64_t wanted[] = {*protocol};
    return send(kSetProtocolFeatures, wanted) && send(kSetOwner, {}) &&
           acknowledged(kSetFeatures, std::span(&features_, 1)) == 0;
}

std::optional<std::uint64_t> FrontEndDriver::share_memory(const Shared* other, std::uint64_t user_address) {
    const std::uint64_t words[] = {1, vhost::Guest::kBase, vhost::Guest::kBytes, user_address, 0};
    return acknowledged(kSetMemTable, words, {(other != nullptr ? other : &memory_)->fd});
}

// Asks for the records the first time, brings them back later.
bool FrontEndDriver::take_in_flight() {
    if (in_flight_ >= 0) return acknowledged(kSetInflightFd, in_flight_words_, {in_flight_}) == 0;
    const std::uint64_t words[] = {0, 0, 1U | (std::uint64_t{options_.size} << 16)};
    std::vector<std::byte> payload;
    if (!send(kGetInflightFd, words) || !receive(payload, &in_flight_, 10000)) return false;
    if (payload.size() < 20 || in_flight_ < 0) return false;
    std::memcpy(in_flight_words_.data(), payload.data(), 20);
    return true;
}

std::optional<std::uint64_t> FrontEndDriver::set_up_queue(int kick_fd) {
    const auto setup = guest_->setup();
    const std::uint64_t size[] = {std::uint64_t{options_.size} << 32};
    const std::uint64_t base[] = {std::uint64_t{setup.base} << 32};
    const std::uint64_t addresses[] = {0, setup.descriptors, setup.used, setup.available, 0};
    const std::uint64_t zero[] = {0};
    const std::uint64_t enable[] = {std::uint64_t{1} << 32};
    if (!send(kSetVringNum, size) || !send(kSetVringBase, base) || !send(kSetVringAddr, addresses)) return {};
    if (!send(kSetVringCall, zero, {call_}) || !send(kSetVringKick, zero, {kick_fd})) return {};
    return acknowledged(kSetVringEnable, enable);
}

void FrontEndDriver::send_events() {
    const std::uint64_t zero[] = {0};
    send(kSetVringKick, zero, {kick_});
    send(kSetVringCall, zero, {call_});
}

std::optional<std::uint64_t> FrontEndDriver::log(bool on) {
    if (on) {
        const std::uint64_t words[] = {log_.bytes, 0};
        std::vector<std::byte> payload;
        if (!send(kSetLogBase, words, {log_.fd}) || !receive(payload, nullptr, 10000)) return {};
    }
    features_ = on ? features_ | vhost::kFeatureLogAll : features_ & ~vhost::kFeatureLogAll;
    return acknowledged(kSetFeatures, std::span(&features_, 1));
}

void FrontEndDriver::ask_base() {
    const std::uint64_t zero[] = {0};
    send(kGetVringBase, zero);
}

std::optional<std::uint32_t> FrontEndDriver::receive_base(int timeout_ms) {
    std::vector<std::byte> payload;
    if (!receive(payload, nullptr, timeout_ms) || payload.size() != 8) return {};
    std::uint32_t base = 0;
    std::memcpy(&base, payload.data() + 4, sizeof base);
    return base;
}

std::optional<std::vector<std::byte>> FrontEndDriver::config() {
    std::vector<std::byte> payload;
    std::vector<std::uint64_t> words(9, 0);  // offset 0, 60 bytes, flags 0, room for them
    words[0] = std::uint64_t{60} << 32;
    if (!send(kGetConfig, words) || !receive(payload, nullptr, 10000)) return {};
    return payload;
}

// ---- the queue ----

void FrontEndDriver::kick() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(kick_, &one, sizeof one);
}

void FrontEndDriver::fill_call() {
    const std::uint64_t most = ~std::uint64_t{0} - 1;
    wait_for_call(0);
    [[maybe_unused]] const auto written = ::write(call_, &most, sizeof most);
    ::fcntl(call_, F_SETFL, 0);
}

bool FrontEndDriver::wait_for_call(int timeout_ms) {
    std::uint64_t count = 0;
    return readable(call_, timeout_ms) && ::read(call_, &count, sizeof count) == sizeof count;
}

std::vector<std::pair<std::uint16_t, std::uint32_t>> FrontEndDriver::reap(std::size_t count, int timeout_ms) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    std::vector<std::pair<std::uint16_t, std::uint32_t>> all;
    for (;;) {
        // asked for before looking: nothing is shown in between without a call
        guest_->ask_to_be_told();
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const auto some = guest_->reap();
        all.insert(all.end(), some.begin(), some.end());
        if (all.size() >= count || milliseconds_left(until) == 0) return all;
        if (some.empty()) wait_for_call(milliseconds_left(until));
    }
}

bool FrontEndDriver::ended(int timeout_ms) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    std::array<std::byte, 64> skipped{};
    while (readable(socket_, milliseconds_left(until))) {
        if (::recv(socket_, skipped.data(), skipped.size(), 0) <= 0) return true;
    }
    return false;
}

std::optional<std::uint16_t> FrontEndDriver::add(std::uint32_t type, std::uint64_t sector,
                                                 std::uint32_t bytes, std::size_t slot, std::uint32_t pieces,
                                                 bool indirect) {
    struct {
        std::uint32_t type, priority;
        std::uint64_t sector;
    } const header{type, 0, sector};
    std::memcpy(guest_->raw() + header_at(slot), &header, sizeof header);
    *status_at(slot) = std::byte{0xff};
    const bool to_guest = type == 0 || type == 8;
    std::vector<vhost::Buffer> buffers{{vhost::Guest::kBase + header_at(slot), 16, false}};
    std::uint64_t at = vhost::Guest::kBase + data_at(slot);
    for (std::uint32_t i = 0; i < pieces && bytes > 0; ++i) {
        const std::uint32_t part = i + 1 == pieces ? bytes - bytes / pieces * i : bytes / pieces;
        buffers.push_back({at, part, to_guest});
        at += part;
    }
    buffers.push_back({vhost::Guest::kBase + header_at(slot) + 48, 1, true});
    return guest_->add(buffers, indirect);
}

}  // namespace gemel::vhost_user
