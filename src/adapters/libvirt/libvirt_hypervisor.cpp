#include "adapters/libvirt/libvirt_hypervisor.hpp"

#include <array>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <pugixml.hpp>

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "adapters/libvirt/calls.hpp"

namespace gemel {

using namespace libvirt;

using cluster::DomainState;

struct LibvirtHypervisor::Listener {
    std::mutex mutex;
    std::function<void()> call;

    void changed() {
        const std::scoped_lock lock(mutex);
        if (call) call();
    }
};

namespace {

constexpr int kKeepAliveIntervalSeconds = 5;

DomainState state_of(int state) {
    switch (state) {
        case VIR_DOMAIN_PAUSED:
        case VIR_DOMAIN_PMSUSPENDED: return DomainState::paused;
        case VIR_DOMAIN_SHUTDOWN: return DomainState::shutting_down;
        case VIR_DOMAIN_SHUTOFF: return DomainState::shut_off;
        case VIR_DOMAIN_CRASHED: return DomainState::crashed;
        default: return DomainState::running;  // running, blocked, or unknown: taken for the worse
    }
}

std::string_view state_word(int state) {
    static constexpr std::array<std::string_view, 8> kWords = {
        "no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended"};
    const auto index = static_cast<std::size_t>(state);
    return index < kWords.size() ? kWords[index] : "unknown";
}

std::string_view reason_word(int state, int reason) {
    if (state == VIR_DOMAIN_RUNNING) {
        switch (reason) {
            case VIR_DOMAIN_RUNNING_BOOTED: return "booted";
            case VIR_DOMAIN_RUNNING_MIGRATED: return "migrated";
            case VIR_DOMAIN_RUNNING_UNPAUSED: return "unpaused";
            case VIR_DOMAIN_RUNNING_CRASHED: return "restarted after a crash";
            default: return "";
        }
    }
    if (state == VIR_DOMAIN_PAUSED) {
        switch (reason) {
            case VIR_DOMAIN_PAUSED_USER: return "user";
            case VIR_DOMAIN_PAUSED_MIGRATION: return "migrating";
            case VIR_DOMAIN_PAUSED_IOERROR: return "I/O error";
            case VIR_DOMAIN_PAUSED_WATCHDOG: return "watchdog";
            case VIR_DOMAIN_PAUSED_SHUTTING_DOWN: return "shutting down";
            case VIR_DOMAIN_PAUSED_STARTING_UP: return "starting up";
            case VIR_DOMAIN_PAUSED_CRASHED: return "crashed";
            default: return "";
        }
    }
    return "";
}

Result<Domain> read(virDomainPtr handle) {
    Domain domain;
    std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
    if (virDomainGetUUIDString(handle, uuid.data()) < 0) return libvirt_error("reading a domain");
    auto id = GuestId::parse(uuid.data());
    if (!id) return tl::unexpected<Error>(id.error());
    domain.uuid = *id;
    domain.name = virDomainGetName(handle);
    int state = 0;
    int reason = 0;
    if (virDomainGetState(handle, &state, &reason, 0) < 0)
        return libvirt_error("reading the state of " + domain.name);
    domain.state = state_of(state);
    domain.state_text = state_word(state);
    domain.reason = reason_word(state, reason);
    return domain;
}

// "kvm" or "qemu"; the state of a domain does not say it, its description does.
std::string kind_of(virDomainPtr handle) {
    pugi::xml_document document;
    const std::string text = take(virDomainGetXMLDesc(handle, 0));
    document.load_buffer(text.data(), text.size());
    return document.document_element().attribute("type").value();
}

Result<Domain> read_with_kind(virDomainPtr handle) {
    auto domain = read(handle);
    if (domain) domain->kind = kind_of(handle);
    return domain;
}

std::string version_text(unsigned long version) {
    return fmt::format("{}.{}.{}", version / 1000000, version / 1000 % 1000, version % 1000);
}

// The interface's own description with another state of its cable: an update has to name all of it.
std::string with_link(const pugi::xml_node& interface, bool up) {
    pugi::xml_document document;
    auto copy = document.append_copy(interface);
    copy.remove_child("link");
    copy.append_child("link").append_attribute("state").set_value(up ? "up" : "down");
    struct Writer : pugi::xml_writer {
        std::string text;
        void write(const void* data, std::size_t size) override {
            text.append(static_cast<const char*>(data), size);
        }
    } writer;
    document.save(writer, "", pugi::format_raw | pugi::format_no_declaration);
    return std::move(writer.text);
}

}  // namespace

LibvirtHypervisor::LibvirtHypervisor(std::string uri)
    : uri_(std::move(uri)), listener_(std::make_shared<Listener>()) {}

LibvirtHypervisor::~LibvirtHypervisor() {
    {
        const std::scoped_lock lock(listener_->mutex);
        listener_->call = nullptr;
    }
    disconnect();
}

// The listener is shared with the callbacks: libvirt may still be inside one when its registration ends.
int LibvirtHypervisor::on_event(virConnectPtr, virDomainPtr, int, int, void* shared) {
    (*static_cast<std::shared_ptr<Listener>*>(shared))->changed();
    return 0;
}

void LibvirtHypervisor::on_close(virConnectPtr, int, void* shared) {
    (*static_cast<std::shared_ptr<Listener>*>(shared))->changed();
}

void LibvirtHypervisor::release_listener(void* shared) {
    delete static_cast<std::shared_ptr<Listener>*>(shared);
}

void LibvirtHypervisor::disconnect() {
    if (connection_ == nullptr) return;
    if (event_registration_ >= 0) virConnectDomainEventDeregisterAny(connection_, event_registration_);
    virConnectUnregisterCloseCallback(connection_, on_close);
    virConnectClose(connection_);
    event_registration_ = -1;
    connection_ = nullptr;
}

Result<std::unique_ptr<LibvirtHypervisor>> LibvirtHypervisor::open(const std::string& uri) {
    start_event_loop();
    std::unique_ptr<LibvirtHypervisor> hypervisor(new LibvirtHypervisor(uri));
    if (auto connected = hypervisor->connect(); !connected) return tl::unexpected<Error>(connected.error());
    // Only so that libvirt asks QEMU now and keeps the answer; without one, the start of a domain will say
    // what is wrong.
    take(virConnectGetDomainCapabilities(hypervisor->connection_, nullptr, "x86_64", nullptr, nullptr, 0));
    return hypervisor;
}

void LibvirtHypervisor::on_change(std::function<void()> listener) {
    const std::scoped_lock lock(listener_->mutex);
    listener_->call = std::move(listener);
}

Status LibvirtHypervisor::connect() {
    if (connection_ != nullptr && virConnectIsAlive(connection_) == 1) return {};
    disconnect();
    const auto connected = connect_to(uri_, kKeepAliveIntervalSeconds);
    if (!connected) return tl::unexpected<Error>(connected.error());
    connection_ = *connected;
    auto* const for_events = new std::shared_ptr<Listener>(listener_);
    event_registration_ =
        virConnectDomainEventRegisterAny(connection_, nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                         any_shape(on_event), for_events, release_listener);
    if (event_registration_ < 0) {
        release_listener(for_events);
        auto error = libvirt_error("asking for domain events");
        disconnect();
        return error;
    }
    auto* const for_close = new std::shared_ptr<Listener>(listener_);
    if (virConnectRegisterCloseCallback(connection_, on_close, for_close, release_listener) < 0) {
        release_listener(for_close);
    }
    return {};
}

template <typename Use>
auto LibvirtHypervisor::with_domain(const GuestId& uuid, Use use)
    -> decltype(use(static_cast<virDomainPtr>(nullptr))) {
    if (auto connected = connect(); !connected) return tl::unexpected<Error>(connected.error());
    const DomainHandle handle(virDomainLookupByUUID(connection_, uuid.value.bytes.data()));
    if (!handle) return libvirt_error("looking for domain " + uuid.to_string());
    return use(handle.get());
}

Result<std::vector<Domain>> LibvirtHypervisor::list() {
    if (auto connected = connect(); !connected) return tl::unexpected<Error>(connected.error());
    virDomainPtr* handles = nullptr;
    const int count = virConnectListAllDomains(connection_, &handles, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (count < 0) return libvirt_error("listing domains");
    std::vector<Domain> domains;
    for (int i = 0; i < count; ++i) {
        const DomainHandle handle(handles[i]);
        // One that ended between the two calls is not an error of the list.
        if (auto domain = read_with_kind(handle.get())) domains.push_back(std::move(*domain));
    }
    free(static_cast<void*>(handles));
    return domains;
}

Result<std::optional<Domain>> LibvirtHypervisor::find(const GuestId& uuid) {
    auto found = with_domain(uuid, [](virDomainPtr handle) { return read_with_kind(handle); });
    if (found) return std::optional<Domain>(std::move(*found));
    if (found.error().code == ErrorCode::not_found) return std::optional<Domain>();
    return tl::unexpected<Error>(found.error());
}

Result<Domain> LibvirtHypervisor::create(const std::string& domain_xml, bool paused) {
    pugi::xml_document document;
    document.load_buffer(domain_xml.data(), domain_xml.size());
    const auto id = GuestId::parse(document.document_element().child("uuid").text().get());
    const std::string name = document.document_element().child("name").text().get();
    if (!id)
        return fail(ErrorCode::invalid_argument,
                    "a domain to be created needs a uuid: " + id.error().message);
    auto existing = find(*id);
    if (!existing) return tl::unexpected<Error>(existing.error());
    if (*existing) {
        return fail(ErrorCode::already_exists,
                    fmt::format("domain {} exists already ({})", name, (*existing)->state_text));
    }
    const DomainHandle handle(
        virDomainCreateXML(connection_, domain_xml.c_str(), paused ? VIR_DOMAIN_START_PAUSED : 0));
    if (!handle) return libvirt_error("starting domain " + name);
    return read_with_kind(handle.get());
}

Status LibvirtHypervisor::suspend(const GuestId& uuid) {
    return with_domain(uuid, [](virDomainPtr handle) -> Status {
        if (virDomainSuspend(handle) < 0) return libvirt_error("pausing a domain");
        return {};
    });
}

Status LibvirtHypervisor::resume(const GuestId& uuid) {
    return with_domain(uuid, [](virDomainPtr handle) -> Status {
        if (virDomainResume(handle) < 0) return libvirt_error("resuming a domain");
        return {};
    });
}

Status LibvirtHypervisor::shutdown(const GuestId& uuid) {
    return with_domain(uuid, [](virDomainPtr handle) -> Status {
        if (virDomainShutdownFlags(handle, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) < 0) {
            return libvirt_error("pressing a domain's power button");
        }
        return {};
    });
}

Status LibvirtHypervisor::destroy(const GuestId& uuid) {
    auto done = with_domain(uuid, [](virDomainPtr handle) -> Status {
        if (virDomainDestroy(handle) < 0) return libvirt_error("ending a domain");
        return {};
    });
    if (!done && done.error().code == ErrorCode::not_found) return {};
    if (done || done.error().code != ErrorCode::failed_precondition) return done;
    // "not running": it ended while we asked.
    auto left = find(uuid);
    if (left && !*left) return {};
    return done;
}

Result<std::string> LibvirtHypervisor::description(const GuestId& uuid) {
    return with_domain(uuid, [](virDomainPtr handle) -> Result<std::string> {
        std::string text = take(virDomainGetXMLDesc(handle, 0));
        if (text.empty()) return libvirt_error("reading a domain's description");
        return text;
    });
}

Status LibvirtHypervisor::set_links(const GuestId& uuid, bool up) {
    auto text = description(uuid);
    if (!text) return tl::unexpected<Error>(text.error());
    pugi::xml_document document;
    document.load_buffer(text->data(), text->size());
    return with_domain(uuid, [&](virDomainPtr handle) -> Status {
        for (const auto& interface : document.document_element().child("devices").children("interface")) {
            if (virDomainUpdateDeviceFlags(handle, with_link(interface, up).c_str(), VIR_DOMAIN_AFFECT_LIVE) <
                0) {
                return libvirt_error("changing a network cable of " + std::string(virDomainGetName(handle)));
            }
        }
        return {};
    });
}

Result<std::vector<std::string>> LibvirtHypervisor::host_interfaces(const GuestId& uuid) {
    auto text = description(uuid);
    if (!text) return tl::unexpected<Error>(text.error());
    pugi::xml_document document;
    document.load_buffer(text->data(), text->size());
    std::vector<std::string> names;
    for (const auto& interface : document.document_element().child("devices").children("interface")) {
        names.emplace_back(interface.child("target").attribute("dev").value());
    }
    return names;
}

Result<Console> LibvirtHypervisor::console(const GuestId& uuid) {
    auto text = description(uuid);
    if (!text) return tl::unexpected<Error>(text.error());
    pugi::xml_document document;
    document.load_buffer(text->data(), text->size());
    const auto serial = document.document_element().child("devices").child("serial");
    Console console{serial.attribute("type").value(), serial.child("source").attribute("path").value()};
    if ((console.kind != "pty" && console.kind != "unix") || console.path.empty()) {
        return fail(ErrorCode::failed_precondition,
                    "the domain has no serial line that can be reached from here");
    }
    return console;
}

Result<pid_t> LibvirtHypervisor::process(const GuestId& uuid) {
    auto domain = find(uuid);
    if (!domain) return tl::unexpected<Error>(domain.error());
    if (!*domain) return fail(ErrorCode::not_found, "no domain " + uuid.to_string() + " runs here");
    const std::string path = "/run/libvirt/qemu/" + (*domain)->name + ".pid";
    std::ifstream file(path);
    pid_t process = 0;
    if (!(file >> process) || process <= 1) {
        return fail(ErrorCode::unavailable, fmt::format("expected the process id of QEMU in {}", path));
    }
    return process;
}

Result<HypervisorVersion> LibvirtHypervisor::version() {
    if (auto connected = connect(); !connected) return tl::unexpected<Error>(connected.error());
    unsigned long libvirt = 0;
    unsigned long qemu = 0;
    if (virConnectGetLibVersion(connection_, &libvirt) < 0 || virConnectGetVersion(connection_, &qemu) < 0) {
        return libvirt_error("asking for versions");
    }
    const std::string text = take(virConnectGetCapabilities(connection_));
    pugi::xml_document document;
    document.load_buffer(text.data(), text.size());
    HypervisorVersion version{version_text(libvirt), version_text(qemu), {}};
    for (const auto& guest : document.document_element().children("guest")) {
        const auto arch = guest.child("arch");
        if (std::string_view(arch.attribute("name").value()) != "x86_64") continue;
        for (const auto& machine : arch.children("machine"))
            version.machines.emplace_back(machine.text().get());
    }
    return version;
}

}  // namespace gemel
