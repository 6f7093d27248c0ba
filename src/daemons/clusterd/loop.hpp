// Loop: the one thread that owns the control plane's machine. Everything that happens is posted to it as a
// closure and runs in order; nothing else touches the machine. Worker: one thread for calls that block, fed
// in order. Both are bounded: what does not fit is refused, and the caller answers with a failure.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "adapters/system/boot_clock.hpp"
#include "base/instant.hpp"

namespace gemel::clusterd {

using Work = std::function<void()>;

class Loop {
  public:
    // Any thread. False: full (kMaxWaiting) or ended; the work is dropped.
    bool post(Work work);
    // Runs what is posted until stop(); `on_time` runs whenever the instant it returned last has come, and
    // after every batch of work.
    void run(const std::function<Instant()>& on_time);
    void stop();  // any thread

  private:
    static constexpr std::size_t kMaxWaiting = 65536;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Work> waiting_;
    bool stop_ = false;
};

class Worker {
  public:
    explicit Worker(std::size_t limit);
    ~Worker();  // drops what has not begun, waits for what has
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    bool post(Work work);

  private:
    void run();
    std::size_t limit_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Work> waiting_;
    bool stop_ = false;
    std::thread thread_;
};

}  // namespace gemel::clusterd
