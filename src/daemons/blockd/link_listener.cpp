#include "daemons/blockd/link_listener.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include "adapters/tcp/address.hpp"
#include "base/checksum.hpp"

namespace gemel::blockd {
namespace {

constexpr Duration kPatience = seconds(5);
constexpr Duration kLookAgain = milliseconds(10);
constexpr std::size_t kMaxHelloBytes = 4096;

// One small frame on a fresh connection fits the socket's buffer: a plain send will do.
void send_refusal(int fd, const std::string& reason) {
    const auto body = std::as_bytes(std::span(reason)).first(std::min(reason.size(), link::kMaxTextBytes));
    link::FrameHeader header;
    header.type = link::FrameType::refuse;
    header.body_bytes = static_cast<std::uint32_t>(body.size());
    header.body_crc = crc32c(body);
    std::vector<std::byte> frame(link::kHeaderBytes + body.size());
    link::encode_header(header, std::span<std::byte, link::kHeaderBytes>(frame.data(), link::kHeaderBytes));
    std::ranges::copy(body, frame.begin() + link::kHeaderBytes);
    [[maybe_unused]] const auto sent = ::send(fd, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

// A connection whose hello has not been seen yet.
class LinkListener::Guest final : private ring::Completion {
  public:
    Guest(LinkListener& owner, int fd)
        : owner_(owner),
          fd_(fd),
          again_(owner.reactor_, [this] { look(); }),
          limit_(owner.reactor_, [this] { hurry(); }) {
        limit_.arm(owner.reactor_.now() + kPatience);
        look();
    }
    ~Guest() override {
        if (fd_ >= 0) ::close(fd_);
    }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    int release() { return std::exchange(fd_, -1); }
    int fd() const { return fd_; }

  private:
    void look() {
        busy_ = true;
        owner_.reactor_.receive(fd_, bytes_, MSG_PEEK, *this);
    }
    void hurry() {
        late_ = true;
        if (busy_) return owner_.reactor_.cancel(*this);
        owner_.done(*this, "a connection that never said hello");
    }
    void on_complete(std::int32_t result, std::uint32_t) override {
        busy_ = false;
        if (late_) return owner_.done(*this, "a connection that never said hello");
        if (result <= 0) return owner_.done(*this, "");
        const auto seen = std::span<const std::byte>(bytes_).first(static_cast<std::size_t>(result));
        if (seen.size() < link::kHeaderBytes) return again_.arm(owner_.reactor_.now() + kLookAgain);
        const auto header = link::decode_header(seen.first<link::kHeaderBytes>());
        if (!header) return owner_.done(*this, header.error().message);
        const std::size_t whole = link::kHeaderBytes + header->body_bytes;
        if (header->type != link::FrameType::hello || whole > bytes_.size()) {
            return owner_.done(*this, "a connection that did not begin with a hello");
        }
        if (seen.size() < whole) return again_.arm(owner_.reactor_.now() + kLookAgain);
        const auto hello = link::decode_hello(seen.subspan(link::kHeaderBytes, header->body_bytes));
        if (!hello) return owner_.done(*this, hello.error().message);
        if (owner_.route_(hello->volume, fd_)) {
            release();
        } else {
            send_refusal(fd_, "volume " + hello->volume.to_string() + " is not attached here");
        }
        owner_.done(*this, "");
    }

    LinkListener& owner_;
    int fd_;
    bool busy_ = false;
    bool late_ = false;
    ring::Timer again_;
    ring::Timer limit_;
    std::array<std::byte, kMaxHelloBytes> bytes_{};
};

Result<std::unique_ptr<LinkListener>> LinkListener::open(ring::Reactor& reactor, const std::string& address,
                                                         Route route,
                                                         std::function<void(const std::string&)> log) {
    const auto listener = tcp::listen_on(address);
    if (!listener) return tl::unexpected<Error>(listener.error());
    std::unique_ptr<LinkListener> made(
        new LinkListener(reactor, *listener, std::move(route), std::move(log)));
    made->acceptor_.start();
    return made;
}

LinkListener::LinkListener(ring::Reactor& reactor, int listener, Route route,
                           std::function<void(const std::string&)> log)
    : reactor_(reactor),
      route_(std::move(route)),
      log_(std::move(log)),
      acceptor_(reactor, listener, [this](int fd) { accepted(fd); }) {}

LinkListener::~LinkListener() = default;

void LinkListener::stop() {
    acceptor_.stop(nullptr);
}

void LinkListener::accepted(int fd) {
    if (guests_.size() >= kMaxWaiting) {
        ::close(fd);
        return;
    }
    guests_.push_back(std::make_unique<Guest>(*this, fd));
}

void LinkListener::done(Guest& guest, const std::string& problem) {
    if (!problem.empty()) log_("link: " + problem);
    reactor_.post(
        [this, &guest] { std::erase_if(guests_, [&](const auto& each) { return each.get() == &guest; }); });
}

}  // namespace gemel::blockd
