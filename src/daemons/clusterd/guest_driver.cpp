#include "daemons/clusterd/guest_driver.hpp"

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <poll.h>
#include <thread>

#include <fmt/format.h>

#include "adapters/libvirt/kvm_probe.hpp"
#include "adapters/libvirt/libvirt_hypervisor.hpp"
#include "adapters/log/log.hpp"
#include "daemons/clusterd/domain.hpp"
#include "daemons/clusterd/loop.hpp"

namespace gemel::clusterd {
namespace {

constexpr auto kListInterval = std::chrono::seconds(1);
constexpr Duration kSocketWait = seconds(5);

// One connection to libvirtd, opened when it is first needed and again after it failed to open.
class Connection {
  public:
    Result<LibvirtHypervisor*> get() {
        if (!hypervisor_) {
            auto opened = LibvirtHypervisor::open();
            if (!opened) return tl::unexpected<Error>(opened.error());
            hypervisor_ = std::move(*opened);
        }
        return hypervisor_.get();
    }

  private:
    std::unique_ptr<LibvirtHypervisor> hypervisor_;
};

// Lists all domains every second and after each change.
class Lister {
  public:
    explicit Lister(Sink sink) : sink_(std::move(sink)), thread_([this] { run(); }) {}
    ~Lister() {
        {
            const std::scoped_lock lock(mutex_);
            stop_ = true;
        }
        wake_.notify_one();
        thread_.join();
    }
    Lister(const Lister&) = delete;
    Lister& operator=(const Lister&) = delete;
    void look_now() {
        {
            const std::scoped_lock lock(mutex_);
            now_ = true;
        }
        wake_.notify_one();
    }

  private:
    void run() {
        std::unique_lock lock(mutex_);
        while (!stop_) {
            now_ = false;
            lock.unlock();
            look();
            lock.lock();
            wake_.wait_for(lock, kListInterval, [this] { return stop_ || now_; });
        }
    }
    void look() {
        auto hypervisor = connection_.get();
        if (hypervisor && !listening_) {
            (*hypervisor)->on_change([this] { look_now(); });
            listening_ = true;
        }
        const auto domains = hypervisor
                                 ? (*hypervisor)->list()
                                 : Result<std::vector<Domain>>(tl::unexpected<Error>(hypervisor.error()));
        if (!domains) {
            if (!down_) log::warning("libvirt: " + domains.error().message);
            down_ = true;
            sink_(cluster::LibvirtDown{});
            return;
        }
        down_ = false;
        cluster::DomainList out;
        for (const auto& domain : *domains)
            out.domains.push_back({domain.uuid, domain.name, domain.state, domain.kind});
        sink_(out);
    }

    Sink sink_;
    Connection connection_;
    bool listening_ = false;
    bool down_ = false;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stop_ = false;
    bool now_ = false;
    std::thread thread_;
};

}  // namespace

struct GuestDriver::Impl {
    Impl(const Settings& given, Sink to) : settings(given), sink(std::move(to)) {}

    Status start_domain(const cluster::StartDomain& order);
    template <typename Call>
    void act(cluster::Tag tag, Call call) {
        const bool taken = worker.post([this, tag, call] {
            const Status done = call();
            if (lister) lister->look_now();
            sink(cluster::DomainDone{tag, done.has_value(), done ? "" : done.error().message});
        });
        if (!taken) sink(cluster::DomainDone{tag, false, "too many orders for libvirt at once"});
    }

    const Settings& settings;
    Sink sink;
    Connection connection;  // worker's thread
    std::unique_ptr<Lister> lister;
    Worker worker{64};
};

// The front end's socket appears when blockd has made the epoch stable; without it QEMU would not start.
Status wait_for_socket(const std::string& path) {
    const Instant deadline = boot_now() + kSocketWait;
    while (!std::filesystem::exists(path)) {
        if (boot_now() > deadline)
            return fail(ErrorCode::unavailable, fmt::format("blockd does not serve {}", path));
        ::poll(nullptr, 0, 20);
    }
    return {};
}

Status GuestDriver::Impl::start_domain(const cluster::StartDomain& order) {
    const auto hypervisor = connection.get();
    if (!hypervisor) return tl::unexpected<Error>(hypervisor.error());
    const auto domain = describe_domain(settings, order.guest, order.disks);
    if (!domain) return tl::unexpected<Error>(domain.error());
    for (const auto& socket : domain->sockets) {
        if (auto ok = wait_for_socket(socket); !ok) return ok;
    }
    const auto created = (*hypervisor)->create(domain->xml, false);
    if (!created) return tl::unexpected<Error>(created.error());
    return {};
}

GuestDriver::GuestDriver(const Settings& settings, Sink sink)
    : impl_(std::make_unique<Impl>(settings, std::move(sink))) {}
GuestDriver::~GuestDriver() = default;

void GuestDriver::start() {
    // Known before the first guest is waiting.
    impl_->worker.post([this] {
        const auto verdict = probe_kvm(impl_->settings.file.run_dir);
        log::info(verdict.works ? "guests run under KVM" : "guests run under TCG: " + verdict.why);
    });
    impl_->lister = std::make_unique<Lister>(impl_->sink);
}

void GuestDriver::handle(const cluster::ListDomains&) {
    if (impl_->lister) impl_->lister->look_now();
}

void GuestDriver::handle(const cluster::StartDomain& order) {
    impl_->act(order.tag, [this, order] { return impl_->start_domain(order); });
}

void GuestDriver::handle(const cluster::ShutdownDomain& order) {
    impl_->act(order.tag, [this, uuid = order.uuid]() -> Status {
        const auto hypervisor = impl_->connection.get();
        if (!hypervisor) return tl::unexpected<Error>(hypervisor.error());
        return (*hypervisor)->shutdown(uuid);
    });
}

void GuestDriver::handle(const cluster::DestroyDomain& order) {
    log::info(fmt::format("guest {} is ended: {}", order.uuid.to_string(), order.reason));
    impl_->act(order.tag, [this, uuid = order.uuid]() -> Status {
        const auto hypervisor = impl_->connection.get();
        if (!hypervisor) return tl::unexpected<Error>(hypervisor.error());
        return (*hypervisor)->destroy(uuid);
    });
}

void GuestDriver::console(const GuestId& guest, std::function<void(Result<ConsoleAnswer>)> answer) {
    const bool taken = impl_->worker.post([this, guest, answer] {
        const auto hypervisor = impl_->connection.get();
        if (!hypervisor) return answer(tl::unexpected<Error>(hypervisor.error()));
        const auto console = (*hypervisor)->console(guest);
        if (!console) return answer(tl::unexpected<Error>(console.error()));
        answer(ConsoleAnswer{console->kind, console->path});
    });
    if (!taken) answer(fail(ErrorCode::unavailable, "libvirt is busy; try again"));
}

}  // namespace gemel::clusterd
