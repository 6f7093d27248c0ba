// Reactor: one thread around one io_uring. Everything that belongs to it (sockets, disks, timers, volumes) is
// touched by that thread only; other threads speak to it through post() and stop(). Operations are started by
// the functions below and end in exactly one Completion::on_complete(); the Completion and the memory it
// names stay alive until then. Time is CLOCK_BOOTTIME, read once a turn. No allocation per operation. Not in
// it: what a descriptor means, error handling, payload's meaning.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <sys/socket.h>
#include <vector>

#include <liburing.h>

#include "adapters/ring/buffer_pool.hpp"
#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::ring {

class Completion {
  public:
    // result: as the system call would return it, errors as -errno; flags: IORING_CQE_F_*
    virtual void on_complete(std::int32_t result, std::uint32_t flags) = 0;

  protected:
    virtual ~Completion() = default;
};

// Work to be done once at the end of the turn, so that what many completions caused is done together.
class Deferred {
  public:
    virtual void run_deferred() = 0;

  protected:
    virtual ~Deferred() = default;

  private:
    friend class Reactor;
    Deferred* next_ = nullptr;
    bool queued_ = false;
};

class Reactor;

class Timer {
  public:
    Timer(Reactor& reactor, std::function<void()> action);
    ~Timer();
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    // Instant::never() disarms. A later arm() replaces an earlier one.
    void arm(Instant deadline);
    void disarm() { arm(Instant::never()); }
    Instant deadline() const { return deadline_; }

  private:
    friend class Reactor;
    Reactor& reactor_;
    std::function<void()> action_;
    Instant deadline_ = Instant::never();
};

struct ReactorOptions {
    unsigned entries = 1024;               // submission queue; more operations than this may be in flight
    std::size_t buffer_bytes = 32U << 20;  // payload memory, multiple of 1 MiB
    std::function<void(const std::string&)> log;  // one line for a human; may be empty
};

class Reactor {
  public:
    static Result<std::unique_ptr<Reactor>> create(ReactorOptions options);
    ~Reactor();
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    // until stop(); call it once, on the thread that shall own the reactor
    void run();
    // any thread; run() returns after the current turn
    void stop();
    // any thread; the task runs on the reactor's thread
    void post(std::function<void()> task);
    // at the end of this turn; asking twice before it ran is the same as once
    void defer(Deferred& work);

    Instant now() const { return now_; }
    static Instant read_clock();
    BufferPool& buffers() { return *buffers_; }
    bool buffers_registered() const { return registered_; }

    // ---- operations ----
    // offset: of the file; pwritev2 flags (RWF_DSYNC) for write. Memory inside the pool uses registered
    // buffers.
    void read(int fd, std::span<std::byte> memory, std::uint64_t offset, Completion& completion);
    void write(int fd, std::span<const std::byte> memory, std::uint64_t offset, int rw_flags,
               Completion& completion);
    void fdatasync(int fd, Completion& completion);
    void fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length, Completion& completion);
    void receive(int fd, std::span<std::byte> memory, int flags, Completion& completion);
    // with descriptors along, if the message has room for them
    void receive_message(int fd, msghdr& message, int flags, Completion& completion);
    void send(int fd, const msghdr& message, int flags, Completion& completion);
    // once
    void when_readable(int fd, Completion& completion);
    void accept(int fd, Completion& completion);
    void connect(int fd, const sockaddr& address, socklen_t length, Completion& completion);
    // Ask for the early end of an operation; it still completes, with -ECANCELED or its result.
    void cancel(Completion& completion);

  private:
    friend class Timer;
    struct Wakeup;

    explicit Reactor(ReactorOptions options);
    Status set_up();
    Status set_up_ring();
    void register_buffers();
    io_uring_sqe& next_entry();
    void turn();
    void run_posted();
    void run_deferred();
    void run_timers();
    void program_timer();
    void log(const std::string& line) const;

    ReactorOptions options_;
    std::unique_ptr<BufferPool> buffers_;
    io_uring ring_{};
    bool ring_ready_ = false;
    bool starts_disabled_ = false;
    bool registered_ = false;
    Instant now_;
    std::atomic<bool> stopping_{false};

    std::unique_ptr<Wakeup> posted_wakeup_;
    std::unique_ptr<Wakeup> timer_wakeup_;
    std::mutex posted_mutex_;
    std::vector<std::function<void()>> posted_;
    std::vector<std::function<void()>> posted_running_;

    std::vector<Timer*> timers_;
    bool timers_changed_ = false;
    Instant programmed_ = Instant::never();
    Deferred* deferred_first_ = nullptr;
    Deferred* deferred_last_ = nullptr;
};

}  // namespace gemel::ring
