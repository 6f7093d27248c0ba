#include "daemons/clusterd/migration_driver.hpp"

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <list>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "adapters/libvirt/live_migration.hpp"
#include "adapters/log/log.hpp"
#include "adapters/relay/gate.hpp"
#include "adapters/relay/tunnel.hpp"
#include "daemons/clusterd/domain.hpp"

namespace gemel::clusterd {
namespace {

constexpr const char* kLibvirtSocket = "/run/libvirt/libvirt-sock";
constexpr auto kLookEvery = std::chrono::milliseconds(500);

std::string host_of(const std::string& address) {
    return address.substr(0, address.rfind(':'));
}

}  // namespace

struct MigrationDriver::Impl {
    Impl(const Settings& given, Sink to) : settings(given), sink(std::move(to)) {}
    ~Impl();

    // One guest that moves away: `worker` is inside libvirt, `watcher` looks how far it got.
    struct Move {
        cluster::MigrateDomain order;
        std::atomic<bool> cancel{false};
        std::atomic<bool> over{false};
        std::mutex mutex;
        std::condition_variable wake;
        std::unique_ptr<LiveMigration> libvirt;
        std::thread worker;
        std::thread watcher;
    };

    std::string directory(const GuestId& guest) const {
        return settings.run("migration/" + guest.to_string());
    }
    Result<std::string> open_gate(const cluster::OpenGate& order);
    Result<std::uint32_t> migrate(Move& move);
    void run(Move& move);
    void watch(Move& move);
    void tidy();

    const Settings& settings;
    Sink sink;
    std::unique_ptr<relay::MigrationGate> gate;
    std::list<Move> moves;
};

MigrationDriver::Impl::~Impl() {
    for (auto& move : moves) {
        move.cancel = true;
        move.wake.notify_all();
        move.worker.join();
    }
}

// On the addresses of the replication links, the control network's last: the first that answers is taken.
Result<std::string> MigrationDriver::Impl::open_gate(const cluster::OpenGate& order) {
    std::error_code error;
    const auto place = directory(order.uuid);
    std::filesystem::create_directories(place, error);
    // QEMU makes its socket here, as whichever user libvirt runs it.
    std::filesystem::permissions(settings.run("migration"),
                                 std::filesystem::perms::owner_all | std::filesystem::perms::group_exec |
                                     std::filesystem::perms::others_exec,
                                 error);
    std::filesystem::permissions(place, std::filesystem::perms::all | std::filesystem::perms::sticky_bit,
                                 error);
    if (error) return fail(ErrorCode::unavailable, "making " + place + ": " + error.message());
    std::filesystem::remove(place + "/qemu.sock", error);
    if (!gate) {
        std::vector<std::string> hosts;
        for (const auto& link : settings.file.links) hosts.push_back(host_of(link.address));
        hosts.push_back(host_of(settings.file.control_address));
        auto opened = relay::MigrationGate::open_on(hosts, kLibvirtSocket);
        if (!opened) return tl::unexpected<Error>(opened.error());
        gate = std::move(*opened);
    }
    gate->open(order.uuid.to_string(), order.secret, place + "/qemu.sock");
    return gate->addresses();
}

Result<std::uint32_t> MigrationDriver::Impl::migrate(Move& move) {
    const auto& order = move.order;
    const auto domain = describe_domain(settings, order.guest, order.disks);
    if (!domain) return tl::unexpected<Error>(domain.error());
    std::error_code error;
    std::filesystem::create_directories(settings.run("migration"), error);
    const auto tunnel = relay::MigrationTunnel::dig({directory(order.guest.uuid), order.migration.gate,
                                                     order.guest.uuid.to_string(), order.migration.secret});
    if (!tunnel) return tl::unexpected<Error>(tunnel.error());
    auto libvirt = LiveMigration::open();
    if (!libvirt) return tl::unexpected<Error>(libvirt.error());
    {
        const std::scoped_lock lock(move.mutex);
        move.libvirt = std::move(*libvirt);
    }
    if (move.cancel) return fail(ErrorCode::failed_precondition, "cancelled");
    MigrationWay way;
    way.libvirt_socket = (*tunnel)->libvirt_socket();
    way.qemu_socket = (*tunnel)->qemu_socket();
    way.domain_xml = domain->xml;
    way.bandwidth_bytes = order.migration.bandwidth_bytes;
    way.auto_converge = order.migration.auto_converge;
    return move.libvirt->run(order.guest.uuid, way);
}

void MigrationDriver::Impl::run(Move& move) {
    move.watcher = std::thread([this, &move] { watch(move); });
    const auto done = migrate(move);
    move.over = true;
    move.wake.notify_all();
    move.watcher.join();
    sink(cluster::MigrateDone{move.order.tag, done.has_value(), done ? "" : done.error().message,
                              done ? *done : 0});
}

void MigrationDriver::Impl::watch(Move& move) {
    const GuestId& guest = move.order.guest.uuid;
    bool aimed = false;
    std::unique_lock lock(move.mutex);
    while (!move.over) {
        if (move.libvirt) {
            if (const auto seen = move.libvirt->progress(guest)) {
                if (!aimed)
                    aimed = move.libvirt->set_downtime(guest, move.order.migration.downtime_ms).has_value();
                if (move.cancel) {
                    if (auto ok = move.libvirt->cancel(guest); !ok) log::warning(ok.error().message);
                }
                sink(cluster::MigrationProgress{guest, seen->total_bytes, seen->remaining_bytes,
                                                seen->bytes_per_second});
            }
        }
        move.wake.wait_for(lock, kLookEvery);
    }
}

void MigrationDriver::Impl::tidy() {
    for (auto at = moves.begin(); at != moves.end();) {
        if (!at->over) {
            ++at;
            continue;
        }
        at->worker.join();
        at = moves.erase(at);
    }
}

MigrationDriver::MigrationDriver(const Settings& settings, Sink sink)
    : impl_(std::make_unique<Impl>(settings, std::move(sink))) {}
MigrationDriver::~MigrationDriver() = default;

void MigrationDriver::handle(const cluster::OpenGate& order) {
    const auto opened = impl_->open_gate(order);
    impl_->sink(cluster::GateDone{order.tag, opened.has_value(), opened ? *opened : opened.error().message});
}

void MigrationDriver::handle(const cluster::CloseGate& order) {
    if (impl_->gate) impl_->gate->close(order.uuid.to_string());
    std::error_code error;
    std::filesystem::remove_all(impl_->directory(order.uuid), error);
}

void MigrationDriver::handle(const cluster::MigrateDomain& order) {
    impl_->tidy();
    if (impl_->moves.size() >= kMaxMoves)
        return impl_->sink(cluster::MigrateDone{order.tag, false, "too many guests move away at once", 0});
    auto& move = impl_->moves.emplace_back();
    move.order = order;
    move.worker = std::thread([impl = impl_.get(), &move] { impl->run(move); });
}

void MigrationDriver::handle(const cluster::CancelMigration& order) {
    for (auto& move : impl_->moves) {
        if (move.order.guest.uuid != order.uuid || move.over) continue;
        move.cancel = true;
        move.wake.notify_all();
    }
}

}  // namespace gemel::clusterd
