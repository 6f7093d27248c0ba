#include "daemons/clusterd/lease_keeper.hpp"

#include <chrono>

#include "daemons/clusterd/loop.hpp"

namespace gemel::clusterd {

LeaseKeeper::LeaseKeeper(const etcd::ClientOptions& client, std::function<void(std::uint64_t)> on_lost)
    : client_(client), on_lost_(std::move(on_lost)), thread_([this] { run(); }) {}

LeaseKeeper::~LeaseKeeper() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    client_.cancel();
    wake_.notify_one();
    thread_.join();
}

void LeaseKeeper::grant(std::uint32_t ttl_s, std::function<void(std::uint64_t)> on_granted) {
    {
        const std::scoped_lock lock(mutex_);
        wanted_ttl_s_ = ttl_s;
        on_granted_ = std::move(on_granted);
    }
    wake_.notify_one();
}

void LeaseKeeper::revoke(std::uint64_t id) {
    {
        const std::scoped_lock lock(mutex_);
        revoke_ = id;
        if (held_ == id) held_ = 0;
    }
    wake_.notify_one();
}

void LeaseKeeper::run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        if (revoke_ != 0) {
            const auto id = std::exchange(revoke_, 0);
            lock.unlock();
            // Lost replies do no harm: an unrevoked lease ends by itself.
            [[maybe_unused]] const auto done =
                client_.lease_revoke(static_cast<std::int64_t>(id), seconds(2));
            lock.lock();
        } else if (wanted_ttl_s_ != 0) {
            const auto ttl_s = std::exchange(wanted_ttl_s_, 0);
            const auto answer = on_granted_;
            lock.unlock();
            const auto granted = client_.lease_grant(ttl_s, seconds(2));
            lock.lock();
            held_ = granted ? static_cast<std::uint64_t>(*granted) : 0;
            ttl_s_ = ttl_s;
            const auto id = held_;
            lock.unlock();
            answer(id);
            lock.lock();
        } else if (held_ != 0) {
            keep(lock);
        } else {
            wake_.wait(lock, [this] { return stop_ || revoke_ != 0 || wanted_ttl_s_ != 0; });
        }
    }
}

// Three attempts in a time to live; lost when none came through, or etcd says that there is no such lease.
void LeaseKeeper::keep(std::unique_lock<std::mutex>& lock) {
    const auto id = held_;
    const Duration third = seconds(ttl_s_) / 3;
    Instant last = boot_now();
    while (!stop_ && held_ == id && revoke_ == 0 && wanted_ttl_s_ == 0) {
        const auto interval = std::chrono::nanoseconds(third.nanoseconds);
        wake_.wait_for(lock, interval, [&] { return stop_ || held_ != id || wanted_ttl_s_ != 0; });
        if (stop_ || held_ != id || wanted_ttl_s_ != 0) return;
        lock.unlock();
        const Instant sent = boot_now();
        const auto left = client_.lease_keepalive(static_cast<std::int64_t>(id), third);
        lock.lock();
        if (left && *left > 0) {
            last = sent;
            continue;
        }
        const bool gone = left.has_value() || boot_now() - last > seconds(ttl_s_);
        if (!gone || held_ != id) continue;
        held_ = 0;
        lock.unlock();
        on_lost_(id);
        lock.lock();
    }
}

}  // namespace gemel::clusterd
