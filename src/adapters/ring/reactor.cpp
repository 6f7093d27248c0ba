#include "adapters/ring/reactor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/system/boot_clock.hpp"
#include "base/invariant.hpp"

namespace gemel::ring {

// A descriptor that wakes the ring (eventfd or timerfd): always one 8-byte read in flight.
struct Reactor::Wakeup final : Completion {
    Reactor& reactor;
    int fd;
    std::uint64_t count = 0;

    Wakeup(Reactor& owner, int descriptor) : reactor(owner), fd(descriptor) {}
    ~Wakeup() override { ::close(fd); }
    Wakeup(const Wakeup&) = delete;
    Wakeup& operator=(const Wakeup&) = delete;
    void wait() { reactor.read(fd, std::as_writable_bytes(std::span(&count, 1)), 0, *this); }
    void on_complete(std::int32_t, std::uint32_t) override { wait(); }
};

Timer::Timer(Reactor& reactor, std::function<void()> action) : reactor_(reactor), action_(std::move(action)) {
    reactor_.timers_.push_back(this);
}

Timer::~Timer() {
    std::replace(reactor_.timers_.begin(), reactor_.timers_.end(), this, static_cast<Timer*>(nullptr));
}

void Timer::arm(Instant deadline) {
    deadline_ = deadline;
    // a later deadline needs no new alarm: the old one finds nothing due and programs the next
    if (deadline < reactor_.programmed_) reactor_.timers_changed_ = true;
}

Instant Reactor::read_clock() {
    return boot_now();
}

Reactor::Reactor(ReactorOptions options) : options_(std::move(options)), now_(read_clock()) {}

Reactor::~Reactor() {
    if (ring_ready_) io_uring_queue_exit(&ring_);
}

Result<std::unique_ptr<Reactor>> Reactor::create(ReactorOptions options) {
    std::unique_ptr<Reactor> reactor(new Reactor(std::move(options)));
    if (auto ready = reactor->set_up(); !ready) return tl::unexpected<Error>(ready.error());
    return reactor;
}

Status Reactor::set_up() {
    auto buffers = BufferPool::create(options_.buffer_bytes);
    if (!buffers) return tl::unexpected<Error>(buffers.error());
    buffers_ = std::move(*buffers);
    if (auto ring = set_up_ring(); !ring) return ring;
    register_buffers();
    const int events = ::eventfd(0, EFD_CLOEXEC);
    const int timer = ::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
    if (events < 0 || timer < 0) {
        if (events >= 0) ::close(events);
        if (timer >= 0) ::close(timer);
        return fail(ErrorCode::io_error,
                    fmt::format("no event or timer descriptor: {}", std::strerror(errno)));
    }
    posted_wakeup_ = std::make_unique<Wakeup>(*this, events);
    timer_wakeup_ = std::make_unique<Wakeup>(*this, timer);
    return {};
}

Status Reactor::set_up_ring() {
    // Best first; older kernels know fewer flags. R_DISABLED lets run()'s thread become the only issuer.
    constexpr unsigned kBest =
        IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int result = -EINVAL;
    for (const unsigned flags : {kBest, unsigned{IORING_SETUP_COOP_TASKRUN}, 0U}) {
        io_uring_params parameters{};
        parameters.flags = flags | IORING_SETUP_CQSIZE;
        parameters.cq_entries = options_.entries * 4;
        result = io_uring_queue_init_params(options_.entries, &ring_, &parameters);
        if (result == 0) {
            ring_ready_ = true;
            starts_disabled_ = flags == kBest;
            return {};
        }
        if (result != -EINVAL) break;
    }
    return fail(
        ErrorCode::unsupported,
        fmt::format("no io_uring: {}; a kernel 5.19 or newer with io_uring allowed is expected (sysctl "
                    "kernel.io_uring_disabled, seccomp, memlock limit)",
                    std::strerror(-result)));
}

void Reactor::register_buffers() {
    const auto whole = buffers_->whole();
    const iovec vector{whole.data(), whole.size()};
    const int result = io_uring_register_buffers(&ring_, &vector, 1);
    registered_ = result == 0;
    if (!registered_) {
        log(fmt::format(
            "payload memory ({} MiB) is not registered with io_uring: {}; disk I/O costs a little more "
            "CPU. Raise the memlock limit (LimitMEMLOCK=) to avoid that",
            whole.size() >> 20, std::strerror(-result)));
    }
}

void Reactor::log(const std::string& line) const {
    if (options_.log) options_.log(line);
}

void Reactor::run() {
    if (starts_disabled_) {
        // Debian's liburing 2.3 declares io_uring_enable_rings() and does not export it
        const long enabled =
            ::syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
        INVARIANT(enabled == 0, "a ring that was set up can be enabled");
    }
    posted_wakeup_->wait();
    timer_wakeup_->wait();
    timers_changed_ = true;
    now_ = read_clock();
    while (!stopping_.load(std::memory_order_acquire)) turn();
}

void Reactor::turn() {
    run_posted();
    buffers_->wake_waiters();
    run_deferred();
    program_timer();
    const int submitted = io_uring_submit_and_wait(&ring_, 1);
    INVARIANT(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY ||
                  submitted == -ETIME,
              "the kernel accepts what was submitted");
    now_ = read_clock();
    struct Ended {
        Completion* completion;
        std::int32_t result;
        std::uint32_t flags;
    };
    std::array<io_uring_cqe*, 128> entries{};
    std::array<Ended, 128> ended{};
    for (;;) {
        const unsigned count = io_uring_peek_batch_cqe(&ring_, entries.data(), entries.size());
        for (unsigned i = 0; i < count; ++i) {
            ended[i] = {static_cast<Completion*>(io_uring_cqe_get_data(entries[i])), entries[i]->res,
                        entries[i]->flags};
        }
        io_uring_cq_advance(&ring_, count);
        for (unsigned i = 0; i < count; ++i) {
            if (ended[i].completion != nullptr)
                ended[i].completion->on_complete(ended[i].result, ended[i].flags);
        }
        if (count < entries.size()) break;
    }
    run_timers();
}

void Reactor::stop() {
    stopping_.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    // an eventfd that is full wakes its reader anyway
    [[maybe_unused]] const auto written = ::write(posted_wakeup_->fd, &one, sizeof one);
}

void Reactor::post(std::function<void()> task) {
    {
        const std::lock_guard lock(posted_mutex_);
        posted_.push_back(std::move(task));
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(posted_wakeup_->fd, &one, sizeof one);
}

void Reactor::run_posted() {
    {
        const std::lock_guard lock(posted_mutex_);
        posted_running_.swap(posted_);
    }
    for (auto& task : posted_running_) task();
    posted_running_.clear();
}

void Reactor::defer(Deferred& work) {
    if (work.queued_) return;
    work.queued_ = true;
    work.next_ = nullptr;
    (deferred_last_ != nullptr ? deferred_last_->next_ : deferred_first_) = &work;
    deferred_last_ = &work;
}

void Reactor::run_deferred() {
    while (deferred_first_ != nullptr) {
        Deferred& work = *deferred_first_;
        deferred_first_ = work.next_;
        if (deferred_first_ == nullptr) deferred_last_ = nullptr;
        work.queued_ = false;
        work.run_deferred();
    }
}

void Reactor::run_timers() {
    if (now_ < programmed_) return;
    timers_changed_ = true;
    for (std::size_t i = 0; i < timers_.size(); ++i) {  // actions may add timers
        Timer* timer = timers_[i];
        if (timer == nullptr || timer->deadline_ > now_) continue;
        timer->deadline_ = Instant::never();
        timer->action_();
    }
}

void Reactor::program_timer() {
    if (!timers_changed_) return;
    timers_changed_ = false;
    std::erase(timers_, nullptr);
    Instant next = Instant::never();
    for (const Timer* timer : timers_) next = std::min(next, timer->deadline_);
    if (next == programmed_) return;
    programmed_ = next;
    itimerspec when{};
    if (next != Instant::never()) {
        const std::int64_t at = std::max<std::int64_t>(next.nanoseconds_since_boot, 1);
        when.it_value = {at / 1'000'000'000, at % 1'000'000'000};
    }
    ::timerfd_settime(timer_wakeup_->fd, TFD_TIMER_ABSTIME, &when, nullptr);
}

io_uring_sqe& Reactor::next_entry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {  // queue full: hand over what is there
        io_uring_submit(&ring_);
        entry = io_uring_get_sqe(&ring_);
    }
    return *entry;
}

void Reactor::read(int fd, std::span<std::byte> memory, std::uint64_t offset, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    const auto length = static_cast<unsigned>(memory.size());
    if (registered_ && buffers_->contains(memory.data())) {
        io_uring_prep_read_fixed(&entry, fd, memory.data(), length, offset, 0);
    } else {
        io_uring_prep_read(&entry, fd, memory.data(), length, offset);
    }
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::write(int fd, std::span<const std::byte> memory, std::uint64_t offset, int rw_flags,
                    Completion& completion) {
    io_uring_sqe& entry = next_entry();
    const auto length = static_cast<unsigned>(memory.size());
    if (registered_ && buffers_->contains(memory.data())) {
        io_uring_prep_write_fixed(&entry, fd, memory.data(), length, offset, 0);
    } else {
        io_uring_prep_write(&entry, fd, memory.data(), length, offset);
    }
    entry.rw_flags = rw_flags;
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::fdatasync(int fd, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_fsync(&entry, fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length,
                        Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_fallocate(&entry, fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::receive(int fd, std::span<std::byte> memory, int flags, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_recv(&entry, fd, memory.data(), memory.size(), flags);
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::receive_message(int fd, msghdr& message, int flags, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_recvmsg(&entry, fd, &message, static_cast<unsigned>(flags));
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::when_readable(int fd, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_poll_add(&entry, fd, POLLIN);
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::send(int fd, const msghdr& message, int flags, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_sendmsg(&entry, fd, &message, static_cast<unsigned>(flags));
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::accept(int fd, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_accept(&entry, fd, nullptr, nullptr, SOCK_CLOEXEC);
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::connect(int fd, const sockaddr& address, socklen_t length, Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_connect(&entry, fd, &address, length);
    io_uring_sqe_set_data(&entry, &completion);
}

void Reactor::cancel(Completion& completion) {
    io_uring_sqe& entry = next_entry();
    io_uring_prep_cancel(&entry, &completion, 0);
    io_uring_sqe_set_data(&entry, nullptr);
}

}  // namespace gemel::ring
