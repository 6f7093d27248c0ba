#include "adapters/libvirt/live_migration.hpp"

#include <fmt/format.h>
#include <libvirt/libvirt.h>

#include "adapters/libvirt/calls.hpp"

namespace gemel {

using namespace libvirt;

namespace {

constexpr int kKeepAliveIntervalSeconds = 3;

using Downtime = std::shared_ptr<std::atomic<std::uint32_t>>;

void job_completed(virConnectPtr, virDomainPtr, virTypedParameterPtr parameters, int count, void* shared) {
    unsigned long long downtime = 0;
    if (virTypedParamsGetULLong(parameters, count, VIR_DOMAIN_JOB_DOWNTIME, &downtime) == 1)
        **static_cast<Downtime*>(shared) = static_cast<std::uint32_t>(downtime);
}

void release_downtime(void* shared) {
    delete static_cast<Downtime*>(shared);
}

// virDomainMigrateToURI3's parameters; freed with the object.
class Parameters {
  public:
    ~Parameters() { virTypedParamsFree(list_, count_); }
    Parameters() = default;
    Parameters(const Parameters&) = delete;
    Parameters& operator=(const Parameters&) = delete;
    void add(const char* name, const std::string& value) {
        virTypedParamsAddString(&list_, &count_, &room_, name, value.c_str());
    }
    void add(const char* name, unsigned long long value) {
        virTypedParamsAddULLong(&list_, &count_, &room_, name, value);
    }
    virTypedParameterPtr list() const { return list_; }
    unsigned count() const { return static_cast<unsigned>(count_); }

  private:
    virTypedParameterPtr list_ = nullptr;
    int count_ = 0;
    int room_ = 0;
};

Result<DomainHandle> find(virConnectPtr connection, const GuestId& uuid) {
    DomainHandle handle(virDomainLookupByUUID(connection, uuid.value.bytes.data()));
    if (!handle) return libvirt_error("looking for domain " + uuid.to_string());
    return handle;
}

}  // namespace

Result<std::unique_ptr<LiveMigration>> LiveMigration::open(const std::string& uri) {
    start_event_loop();
    std::unique_ptr<LiveMigration> made(new LiveMigration());
    for (auto* connection : {&made->copying_, &made->watching_}) {
        const auto connected = connect_to(uri, kKeepAliveIntervalSeconds);
        if (!connected) return tl::unexpected<Error>(connected.error());
        *connection = *connected;
    }
    auto* const shared = new Downtime(made->downtime_ms_);
    made->registration_ =
        virConnectDomainEventRegisterAny(made->watching_, nullptr, VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                                         any_shape(job_completed), shared, release_downtime);
    if (made->registration_ < 0) release_downtime(shared);
    return made;
}

LiveMigration::~LiveMigration() {
    if (registration_ >= 0) virConnectDomainEventDeregisterAny(watching_, registration_);
    for (auto* connection : {copying_, watching_}) {
        if (connection != nullptr) virConnectClose(connection);
    }
}

Result<std::uint32_t> LiveMigration::run(const GuestId& uuid, const MigrationWay& way) {
    const auto domain = find(copying_, uuid);
    if (!domain) return tl::unexpected<Error>(domain.error());
    constexpr unsigned long long kMiB = 1ULL << 20;
    Parameters parameters;
    parameters.add(VIR_MIGRATE_PARAM_URI, "unix://" + way.qemu_socket);
    parameters.add(VIR_MIGRATE_PARAM_DEST_XML, way.domain_xml);
    if (way.bandwidth_bytes != 0)
        parameters.add(VIR_MIGRATE_PARAM_BANDWIDTH, (way.bandwidth_bytes + kMiB - 1) / kMiB);
    // "Unsafe" to libvirt are disks it does not know to be shared; ours are the same on both, and have one
    // writer.
    unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER | VIR_MIGRATE_UNSAFE;
    if (way.auto_converge) flags |= VIR_MIGRATE_AUTO_CONVERGE;
    const auto uri = fmt::format("qemu+unix:///system?socket={}", way.libvirt_socket);
    *downtime_ms_ = 0;
    if (virDomainMigrateToURI3(domain->get(), uri.c_str(), parameters.list(), parameters.count(), flags) < 0)
        return libvirt_error("moving a domain");
    return downtime_ms_->load();
}

std::optional<CopyProgress> LiveMigration::progress(const GuestId& uuid) {
    const auto domain = find(watching_, uuid);
    if (!domain) return std::nullopt;
    int type = 0;
    virTypedParameterPtr list = nullptr;
    int count = 0;
    if (virDomainGetJobStats(domain->get(), &type, &list, &count, 0) < 0) return std::nullopt;
    const auto value = [&](const char* name) {
        unsigned long long number = 0;
        return virTypedParamsGetULLong(list, count, name, &number) == 1 ? number : 0ULL;
    };
    std::optional<CopyProgress> out;
    if (type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED) {
        out = CopyProgress{value(VIR_DOMAIN_JOB_MEMORY_TOTAL), value(VIR_DOMAIN_JOB_MEMORY_REMAINING),
                           value(VIR_DOMAIN_JOB_MEMORY_BPS)};
    }
    virTypedParamsFree(list, count);
    return out;
}

Status LiveMigration::set_downtime(const GuestId& uuid, std::uint32_t downtime_ms) {
    const auto domain = find(watching_, uuid);
    if (!domain) return tl::unexpected<Error>(domain.error());
    if (virDomainMigrateSetMaxDowntime(domain->get(), downtime_ms, 0) < 0)
        return libvirt_error("setting the pause to aim at");
    return {};
}

Status LiveMigration::cancel(const GuestId& uuid) {
    const auto domain = find(watching_, uuid);
    if (!domain) return tl::unexpected<Error>(domain.error());
    if (virDomainAbortJob(domain->get()) < 0) return libvirt_error("cancelling a migration");
    return {};
}

}  // namespace gemel
