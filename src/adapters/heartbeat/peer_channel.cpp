#include "adapters/heartbeat/peer_channel.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "adapters/http/client.hpp"
#include "adapters/http/server.hpp"

namespace gemel::heartbeat {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMaxWaiting = 16;
constexpr auto kMaxAge = std::chrono::seconds(1);

// One path to one peer: a queue and a thread that empties it over one kept connection.
class Sender {
  public:
    Sender(PeerPath to, const ChannelOptions& options)
        : to_(std::move(to)),
          timeout_(options.timeout),
          client_({to_.remote, options.tls, to_.peer, to_.local_host, 4096}),
          thread_([this] { run(); }) {}
    ~Sender() {
        {
            const std::scoped_lock lock(mutex_);
            stop_ = true;
        }
        client_.cancel();
        wake_.notify_all();
        thread_.join();
    }
    Sender(const Sender&) = delete;
    Sender& operator=(const Sender&) = delete;

    void send(const std::string& text) {
        {
            const std::scoped_lock lock(mutex_);
            if (waiting_.size() >= kMaxWaiting) waiting_.pop_front();
            waiting_.push_back({Clock::now(), text});
        }
        wake_.notify_one();
    }
    const PeerPath& to() const { return to_; }
    std::int64_t round_trip_us() const { return round_trip_us_; }

  private:
    struct Waiting {
        Clock::time_point since;
        std::string text;
    };
    // False: stopping.
    bool next(std::string& text) {
        std::unique_lock lock(mutex_);
        while (true) {
            wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
            if (stop_) return false;
            Waiting first = std::move(waiting_.front());
            waiting_.pop_front();
            if (Clock::now() - first.since > kMaxAge) continue;
            text = std::move(first.text);
            return true;
        }
    }
    void run() {
        std::string text;
        while (next(text)) {
            const auto start = Clock::now();
            const auto answer =
                client_.call({"POST", "/v1/peer/" + http::percent_encoded(to_.path), text}, timeout_);
            const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start);
            round_trip_us_ = answer && answer->status == 204 ? took.count() : -1;
        }
    }

    PeerPath to_;
    Duration timeout_;
    http::Client client_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Waiting> waiting_;
    bool stop_ = false;
    std::atomic<std::int64_t> round_trip_us_{-1};
    std::thread thread_;
};

}  // namespace

struct PeerChannel::Impl {
    ChannelOptions options;
    OnMessage on_message;
    std::unique_ptr<http::Server> server;
    std::vector<std::unique_ptr<Sender>> senders;
};

PeerChannel::PeerChannel(ChannelOptions options, OnMessage on_message)
    : impl_(std::make_unique<Impl>(Impl{std::move(options), std::move(on_message), nullptr, {}})) {}

// Senders first: none may call back while the server goes away.
PeerChannel::~PeerChannel() {
    impl_->senders.clear();
    if (impl_->server) impl_->server->stop();
}

Status PeerChannel::start() {
    http::Router router;
    router.add("POST", "/v1/peer/{path}",
               [this](const http::Request& request, const std::shared_ptr<http::Responder>& out) {
                   impl_->on_message(request.peer_name, request.parameters.at("path"), request.body);
                   out->respond({204, "", "text/plain"});
               });
    http::ServerOptions limits;
    limits.body_limit = impl_->options.message_limit;
    limits.max_connections = 64;
    impl_->server = std::make_unique<http::Server>(std::move(router), limits);
    const std::set<std::pair<std::string, std::uint16_t>> unique(impl_->options.listen.begin(),
                                                                 impl_->options.listen.end());
    for (const auto& [host, port] : unique) {
        if (auto ok = impl_->server->listen_tls(host, port, impl_->options.tls); !ok)
            return tl::unexpected<Error>(ok.error());
    }
    impl_->server->start();
    for (const auto& path : impl_->options.paths)
        impl_->senders.push_back(std::make_unique<Sender>(path, impl_->options));
    return {};
}

void PeerChannel::send(const std::string& peer, const std::string& path, const std::string& text) {
    if (text.size() > impl_->options.message_limit) return;
    for (auto& sender : impl_->senders) {
        if (sender->to().peer == peer && (path.empty() || sender->to().path == path)) sender->send(text);
    }
}

std::int64_t PeerChannel::round_trip_us(const std::string& peer, const std::string& path) const {
    for (const auto& sender : impl_->senders)
        if (sender->to().peer == peer && sender->to().path == path) return sender->round_trip_us();
    return -1;
}

}  // namespace gemel::heartbeat
