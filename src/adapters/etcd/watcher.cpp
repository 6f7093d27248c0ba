#include "adapters/etcd/watcher.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "adapters/etcd/codec.hpp"
#include "adapters/http/client.hpp"

namespace gemel::etcd {

struct Watcher::Impl {
    Impl(WatcherOptions given, WatcherCallbacks calls)
        : options(std::move(given)), callbacks(std::move(calls)) {}

    void run();
    void one_life();
    Status watch(const http::Address& endpoint, std::int64_t from);
    void lost(const Error& error) {
        if (!stopping()) callbacks.on_lost(error);
    }
    bool stopping() {
        const std::scoped_lock lock(mutex);
        return stop;
    }

    WatcherOptions options;
    WatcherCallbacks callbacks;
    std::mutex mutex;
    std::condition_variable wake;
    bool stop = false;
    bool again = false;                    // restart() was called
    std::shared_ptr<Client> reader;        // guarded: cancelled from outside
    std::shared_ptr<http::Client> stream;  // guarded: cancelled from outside
    std::size_t next_endpoint = 0;
    bool showed_old_copy = false;
    std::thread thread;
};

void Watcher::Impl::run() {
    while (true) {
        {
            const std::scoped_lock lock(mutex);
            if (stop) return;
            again = false;
            reader = std::make_shared<Client>(options.client);
        }
        one_life();
        std::unique_lock lock(mutex);
        reader.reset();
        stream.reset();
        wake.wait_for(lock, std::chrono::nanoseconds(options.retry_interval.nanoseconds),
                      [this] { return stop || again; });
    }
}

void Watcher::Impl::one_life() {
    const auto all = reader->get_prefix(options.prefix, options.read_timeout);
    if (!all) {
        lost(all.error());
        if (showed_old_copy) return;
        const auto stored = reader->get_prefix_serializable(options.prefix, options.read_timeout);
        if (stored && !stopping()) {
            showed_old_copy = true;
            callbacks.on_snapshot(*stored, false);
        }
        return;
    }
    if (stopping()) return;
    showed_old_copy = true;
    callbacks.on_snapshot(*all, true);
    const auto& endpoint = options.client.endpoints[next_endpoint % options.client.endpoints.size()];
    const auto ended = watch(endpoint, all->header.revision + 1);
    // The watch must follow the same store as the read: own member first, another one after a failure.
    if (!ended && ended.error().code == ErrorCode::unavailable) ++next_endpoint;
    if (ended) {
        lost({ErrorCode::unavailable, "the store ended the watch"});
    } else {
        lost(ended.error());
    }
}

Status Watcher::Impl::watch(const http::Address& endpoint, std::int64_t from) {
    // A watch is silent while nothing changes; the liveness of the store is found out by reads, not here.
    constexpr Duration kNoIdleLimit = seconds(24 * 3600);
    std::shared_ptr<http::Client> mine;
    {
        const std::scoped_lock lock(mutex);
        if (stop || again) return {};
        mine = stream = std::make_shared<http::Client>(http::ClientOptions{endpoint, options.client.tls});
    }
    Status problem;
    const auto done = mine->stream({"POST", "/v3/watch", codec::watch_request(options.prefix, from)},
                                   options.client.connect_timeout, kNoIdleLimit, [&](std::string_view line) {
                                       const auto message = codec::watch_message(line);
                                       if (!message) {
                                           problem = tl::unexpected<Error>(message.error());
                                           return false;
                                       }
                                       if (message->cancelled || message->compact_revision != 0) {
                                           problem =
                                               fail(ErrorCode::failed_precondition,
                                                    "the store cancelled the watch: " + message->reason);
                                           return false;
                                       }
                                       if (!message->events.empty() && !stopping())
                                           callbacks.on_events(message->events, message->header);
                                       return true;
                                   });
    return problem ? done : problem;
}

Watcher::Watcher(WatcherOptions options, WatcherCallbacks callbacks)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(callbacks))) {
    impl_->thread = std::thread([impl = impl_.get()] { impl->run(); });
}

Watcher::~Watcher() {
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->stop = true;
        if (impl_->reader) impl_->reader->cancel();
        if (impl_->stream) impl_->stream->cancel();
    }
    impl_->wake.notify_all();
    impl_->thread.join();
}

void Watcher::restart() {
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->again = true;
        if (impl_->reader) impl_->reader->cancel();
        if (impl_->stream) impl_->stream->cancel();
    }
    impl_->wake.notify_all();
}

}  // namespace gemel::etcd
