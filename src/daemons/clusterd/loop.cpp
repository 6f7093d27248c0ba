#include "daemons/clusterd/loop.hpp"

#include <chrono>

namespace gemel::clusterd {

bool Loop::post(Work work) {
    {
        const std::scoped_lock lock(mutex_);
        if (stop_ || waiting_.size() >= kMaxWaiting) return false;
        waiting_.push_back(std::move(work));
    }
    wake_.notify_one();
    return true;
}

void Loop::run(const std::function<Instant()>& on_time) {
    std::deque<Work> batch;
    while (true) {
        const Instant next = on_time();
        {
            std::unique_lock lock(mutex_);
            const Duration left = next - boot_now();
            if (waiting_.empty() && left.nanoseconds > 0)
                wake_.wait_for(lock, std::chrono::nanoseconds(left.nanoseconds),
                               [this] { return stop_ || !waiting_.empty(); });
            if (stop_) return;
            batch.swap(waiting_);
        }
        for (auto& work : batch) work();
        batch.clear();
    }
}

void Loop::stop() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    wake_.notify_one();
}

Worker::Worker(std::size_t limit) : limit_(limit), thread_([this] { run(); }) {}

Worker::~Worker() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

bool Worker::post(Work work) {
    {
        const std::scoped_lock lock(mutex_);
        if (stop_ || waiting_.size() >= limit_) return false;
        waiting_.push_back(std::move(work));
    }
    wake_.notify_one();
    return true;
}

void Worker::run() {
    while (true) {
        Work work;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
            if (stop_) return;
            work = std::move(waiting_.front());
            waiting_.pop_front();
        }
        work();
    }
}

}  // namespace gemel::clusterd
