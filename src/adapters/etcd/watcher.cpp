#include "adapters/etcd/watcher.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "adapters/etcd/codec.hpp"
#include "adapters/http/client.hpp"

namespace gemel::etcd {
namespace {

using Clock = MemberList::Clock;

}  // namespace

struct Watcher::Impl {
    Impl(WatcherOptions given, WatcherCallbacks calls)
        : options(std::move(given)), callbacks(std::move(calls)) {
        if (!options.client.members)
            options.client.members = std::make_shared<MemberList>(options.client.endpoints);
    }

    void run();
    void one_life();
    Status watch(const http::Address& member, std::int64_t from);
    Status message_in(std::string_view line);
    void lost(const Error& error) {
        if (!stopping()) callbacks.on_lost(error);
    }
    bool stopping() {
        const std::scoped_lock lock(mutex);
        return stop;
    }
    void begin_again() {  // with the mutex
        again = true;
        if (reader) reader->cancel();
        if (stream) stream->cancel();
    }
    bool late() const {  // with the mutex
        return watched && late_since &&
               Clock::now() - *late_since > std::chrono::nanoseconds(options.lag_limit.nanoseconds);
    }

    WatcherOptions options;
    WatcherCallbacks callbacks;
    std::mutex mutex;
    std::condition_variable wake;
    bool stop = false;
    bool again = false;                    // restart() was called
    std::shared_ptr<Client> reader;        // guarded: cancelled from outside
    std::shared_ptr<http::Client> stream;  // guarded: cancelled from outside
    std::optional<http::Address> watched;  // the member that is watched now
    std::int64_t delivered = 0;            // newest revision that was handed out
    std::int64_t late_for = 0;             // newer, and seen by others
    std::optional<Clock::time_point> late_since;
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
        watched.reset();
        late_since.reset();
        wake.wait_for(lock, std::chrono::nanoseconds(options.retry_interval.nanoseconds),
                      [this] { return stop || again; });
    }
}

void Watcher::Impl::one_life() {
    const auto all = reader->get_prefix(options.prefix, options.read_timeout);
    if (!all) return lost(all.error());
    {
        const std::scoped_lock lock(mutex);
        if (stop) return;
        delivered = all->header.revision;
    }
    callbacks.on_snapshot(*all);
    const auto member = options.client.members->best();
    const auto ended = watch(member, all->header.revision + 1);
    bool by_us = false;
    {
        const std::scoped_lock lock(mutex);
        by_us = again || stop;
    }
    // Refused by the store (compaction, another store): the member is none the worse for it.
    const bool broke = !ended && ended.error().code != ErrorCode::failed_precondition;
    if (broke && !by_us) options.client.members->failed(member);
    lost(ended ? Error{ErrorCode::unavailable, "the store ended the watch"} : ended.error());
}

Status Watcher::Impl::message_in(std::string_view line) {
    const auto message = codec::watch_message(line);
    if (!message) return tl::unexpected<Error>(message.error());
    if (message->cancelled || message->compact_revision != 0)
        return fail(ErrorCode::failed_precondition, "the store cancelled the watch: " + message->reason);
    if (message->events.empty() || stopping()) return {};
    callbacks.on_events(message->events, message->header);
    const std::scoped_lock lock(mutex);
    delivered = std::max(delivered, message->events.back().pair.mod_revision);
    if (late_since && delivered >= late_for) late_since.reset();
    return {};
}

Status Watcher::Impl::watch(const http::Address& member, std::int64_t from) {
    // The liveness of the watch is found out by what others see (seen()), not by its silence.
    constexpr Duration kNoIdleLimit = seconds(std::int64_t{24} * 3600);
    std::shared_ptr<http::Client> mine;
    {
        const std::scoped_lock lock(mutex);
        if (stop || again) return {};
        mine = stream = std::make_shared<http::Client>(http::ClientOptions{member, options.client.tls});
        watched = member;
    }
    Status problem;
    const auto done = mine->stream({"POST", "/v3/watch", codec::watch_request(options.prefix, from)},
                                   options.client.connect_timeout, kNoIdleLimit, [&](std::string_view line) {
                                       problem = message_in(line);
                                       return problem.has_value();
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
        impl_->begin_again();
    }
    impl_->wake.notify_all();
    impl_->thread.join();
}

void Watcher::restart() {
    {
        const std::scoped_lock lock(impl_->mutex);
        impl_->begin_again();
    }
    impl_->wake.notify_all();
}

void Watcher::seen(std::int64_t revision) {
    const std::scoped_lock lock(impl_->mutex);
    if (!impl_->watched || revision <= impl_->delivered || impl_->late_since) return;
    impl_->late_since = Clock::now();
    impl_->late_for = revision;
}

void Watcher::look() {
    const auto best = impl_->options.client.members->best();
    {
        const std::scoped_lock lock(impl_->mutex);
        if (!impl_->watched) return;
        const bool late = impl_->late();
        if (late) impl_->options.client.members->failed(*impl_->watched);
        // Another member is better only when it comes before this one while both are believed to serve.
        const bool back =
            !(*impl_->watched == best) && !impl_->options.client.members->is_suspect(*impl_->watched);
        if (!late && !back) return;
        impl_->begin_again();
    }
    impl_->wake.notify_all();
}

}  // namespace gemel::etcd
