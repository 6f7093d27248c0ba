#include "core/guest/domain_template.hpp"

#include <algorithm>
#include <array>
#include <pugixml.hpp>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/vhost/session.hpp"

namespace gemel::guest {

namespace {

constexpr std::string_view kQemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0";
// Slots on the root bus: 0 and 1 belong to the chipset (i440FX's bridge is 1), 31 too (Q35's).
constexpr unsigned kRngSlot = 2;
constexpr unsigned kFirstNicSlot = 3;
constexpr unsigned kFirstDiskSlot = kFirstNicSlot + kMaxNics;
static_assert(kFirstDiskSlot + kMaxDisks <= 31);
// Seconds QEMU holds requests while the server of a disk is away: for ever, in the terms of a guest. An error
// would reach the guest as a broken disk, although its data is safe.
constexpr std::uint32_t kReconnectDelaySeconds = 31536000;

bool is_lower_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool is_name(std::string_view text, std::size_t longest) {
    return !text.empty() && text.size() <= longest && is_lower_or_digit(text.front()) &&
           std::ranges::all_of(text, [](char c) { return is_lower_or_digit(c) || c == '-'; });
}

bool is_target(std::string_view text) {
    return text.size() == 3 && text.starts_with("vd") && text[2] >= 'a' && text[2] <= 'z';
}

// The kernel's limit for a unix socket's address is 108 bytes with the final zero.
bool is_socket_path(std::string_view text) {
    return text.starts_with('/') && text.size() < 108 &&
           std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; });
}

bool is_version(std::string_view text) {
    const auto dot = text.find('.');
    const auto digits = [](std::string_view part) {
        return !part.empty() && part.size() <= 3 &&
               std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    };
    return dot != std::string_view::npos && digits(text.substr(0, dot)) && digits(text.substr(dot + 1));
}

tl::unexpected<Error> wrong(std::string message) {
    return fail(ErrorCode::invalid_argument, std::move(message));
}

pugi::xml_node add(pugi::xml_node parent, const char* name,
                   std::initializer_list<std::pair<const char*, std::string>> attributes = {}) {
    auto node = parent.append_child(name);
    for (const auto& [key, value] : attributes) node.append_attribute(key).set_value(value.c_str());
    return node;
}

void add_text(pugi::xml_node parent, const char* name, const std::string& text) {
    add(parent, name).text().set(text.c_str());
}

void add_slot(pugi::xml_node device, unsigned slot) {
    add(device, "address",
        {{"type", "pci"}, {"domain", "0"}, {"bus", "0"}, {"slot", std::to_string(slot)}, {"function", "0"}});
}

void add_basics(pugi::xml_node domain, const GuestRecord& guest, const Template& fixed,
                const Placement& placement) {
    add_text(domain, "name", guest.name);
    add_text(domain, "uuid", guest.uuid.to_string());
    auto memory = add(domain, "memory", {{"unit", "MiB"}});
    memory.text().set(std::to_string(guest.memory_bytes / kMiB).c_str());
    if (placement.protocol == DiskProtocol::vhost_user) {
        auto backing = add(domain, "memoryBacking");
        add(backing, "source", {{"type", "memfd"}});  // sealed by QEMU: it cannot shrink under its reader
        add(backing, "access", {{"mode", "shared"}});
    }
    add_text(domain, "vcpu", std::to_string(guest.vcpus));
    auto os_type = add(add(domain, "os"), "type", {{"arch", "x86_64"}, {"machine", fixed.machine}});
    os_type.text().set("hvm");
    auto features = add(domain, "features");
    add(features, "acpi");
    add(features, "apic");
    if (placement.type == DomainType::kvm) {
        add(domain, "cpu", {{"mode", "host-model"}, {"check", "partial"}});
    } else {
        auto cpu = add(domain, "cpu", {{"mode", "custom"}, {"match", "exact"}, {"check", "none"}});
        add(cpu, "model", {{"fallback", "forbid"}}).text().set("qemu64");
    }
    add(domain, "clock", {{"offset", fixed.clock_offset}});
    // What ended is the planner's to start again, after it looked at the leases; a reset inside QEMU is not
    // an end.
    add_text(domain, "on_poweroff", "destroy");
    add_text(domain, "on_reboot", "restart");
    add_text(domain, "on_crash", "destroy");
    auto power = add(domain, "pm");
    add(power, "suspend-to-mem", {{"enabled", "no"}});
    add(power, "suspend-to-disk", {{"enabled", "no"}});
}

const DiskSocket& socket_of(const GuestDisk& disk, const Placement& placement) {
    return *std::ranges::find(placement.disks, disk.target, &DiskSocket::target);
}

void add_vhost_user_disks(pugi::xml_node devices, const GuestRecord& guest, const Placement& placement) {
    const std::uint32_t queues = std::min<std::uint32_t>(guest.vcpus, vhost::kMaxQueues);
    for (std::size_t i = 0; i < guest.disks.size(); ++i) {
        const auto& disk = guest.disks[i];
        auto node = add(devices, "disk", {{"type", "vhostuser"}, {"device", "disk"}, {"snapshot", "no"}});
        add(node, "driver", {{"name", "qemu"}, {"type", "raw"}, {"queues", std::to_string(queues)}});
        auto source = add(node, "source", {{"type", "unix"}, {"path", socket_of(disk, placement).path}});
        // for ever, once a second: QEMU counts whole ones
        add(source, "reconnect", {{"enabled", "yes"}, {"timeout", "1"}});
        add(node, "target", {{"dev", disk.target}, {"bus", "virtio"}});
        add(node, "boot", {{"order", std::to_string(i + 1)}});
        add_slot(node, kFirstDiskSlot + static_cast<unsigned>(i));
    }
}

void add_devices(pugi::xml_node domain, const GuestRecord& guest, const Template& fixed,
                 const Placement& placement) {
    auto devices = add(domain, "devices");
    add_text(devices, "emulator", placement.emulator);
    const bool express = fixed.machine.starts_with("pc-q35-");
    add(devices, "controller",
        {{"type", "pci"}, {"index", "0"}, {"model", express ? "pcie-root" : "pci-root"}});
    add(devices, "controller", {{"type", "usb"}, {"model", "none"}});
    if (placement.protocol == DiskProtocol::vhost_user) add_vhost_user_disks(devices, guest, placement);
    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        const auto& nic = guest.nics[i];
        auto node = add(devices, "interface", {{"type", "bridge"}});
        add(node, "mac", {{"address", nic.mac.empty() ? mac_address(guest.uuid, i) : nic.mac}});
        add(node, "source", {{"bridge", nic.bridge}});
        add(node, "model", {{"type", "virtio"}});
        add(node, "rom", {{"enabled", "no"}});  // no network boot: seconds of start-up under emulation
        add_slot(node, kFirstNicSlot + static_cast<unsigned>(i));
    }
    auto serial = add(devices, "serial", {{"type", placement.console_socket.empty() ? "pty" : "unix"}});
    if (!placement.console_socket.empty()) {
        add(serial, "source", {{"mode", "bind"}, {"path", placement.console_socket}});
    }
    add(serial, "target", {{"type", "isa-serial"}, {"port", "0"}});
    auto rng = add(devices, "rng", {{"model", "virtio"}});
    add(rng, "backend", {{"model", "random"}}).text().set("/dev/urandom");
    add_slot(rng, kRngSlot);
    add(devices, "memballoon", {{"model", "none"}});
}

// What QEMU takes for a disk without a partition table; told, because it would read the disk for one, also at
// a migration's destination, whose disk does not answer yet (docs/design/0012).
std::string geometry(std::uint64_t size_bytes) {
    constexpr std::uint64_t kHeads = 16;
    constexpr std::uint64_t kSectors = 63;
    const std::uint64_t cylinders = std::clamp<std::uint64_t>(size_bytes / 512 / kHeads / kSectors, 2, 16383);
    return fmt::format("cyls={},heads={},secs={}", cylinders, kHeads, kSectors);
}

// libvirt 9.0 has no word for NBD's reconnect-delay, so QEMU is told directly. Everything libvirt places has
// a fixed slot, so that these cannot collide.
void add_nbd_disks(pugi::xml_node domain, const GuestRecord& guest, const Template& fixed,
                   const Placement& placement) {
    auto command_line = add(domain, "qemu:commandline");
    const auto argument = [&](const std::string& value) {
        add(command_line, "qemu:arg", {{"value", value}});
    };
    const bool express = fixed.machine.starts_with("pc-q35-");
    for (std::size_t i = 0; i < guest.disks.size(); ++i) {
        const auto& disk = guest.disks[i];
        const DiskSocket& socket = socket_of(disk, placement);
        const nlohmann::ordered_json block = {{"driver", "nbd"},
                                              {"node-name", "gemel-" + disk.target},
                                              {"server", {{"type", "unix"}, {"path", socket.path}}},
                                              {"export", disk.volume},
                                              {"reconnect-delay", kReconnectDelaySeconds},
                                              {"cache", {{"direct", true}, {"no-flush", false}}},
                                              {"discard", "unmap"}};
        argument("-blockdev");
        argument(block.dump());
        argument("-device");
        argument(fmt::format(
            "virtio-blk-pci,drive=gemel-{0},id=disk-{0},bus={1}.0,addr={2:#x},bootindex={3},"
            "write-cache=on,{4}",
            disk.target, express ? "pcie" : "pci", kFirstDiskSlot + i, i + 1, geometry(socket.size_bytes)));
    }
}

Status check_disks(const GuestRecord& guest) {
    if (guest.disks.empty() || guest.disks.size() > kMaxDisks) {
        return wrong(fmt::format("guest {}: expected 1 to {} disks, not {}", guest.name, kMaxDisks,
                                 guest.disks.size()));
    }
    std::set<std::string_view> targets;
    std::set<std::string_view> volumes;
    for (const auto& disk : guest.disks) {
        if (!is_target(disk.target) || !targets.insert(disk.target).second) {
            return wrong(fmt::format("guest {}: disk '{}': expected a target from vda to vdz, each once",
                                     guest.name, disk.target));
        }
        if (!is_name(disk.volume, 63) || !volumes.insert(disk.volume).second) {
            return wrong(fmt::format("guest {}: disk {}: '{}' is not the name of a volume of its own",
                                     guest.name, disk.target, disk.volume));
        }
    }
    return {};
}

Status check_nics(const GuestRecord& guest) {
    if (guest.nics.size() > kMaxNics) {
        return wrong(fmt::format("guest {}: expected at most {} network cards, not {}", guest.name, kMaxNics,
                                 guest.nics.size()));
    }
    std::set<std::string> addresses;
    for (std::size_t i = 0; i < guest.nics.size(); ++i) {
        const auto& nic = guest.nics[i];
        if (!is_bridge_name(nic.bridge)) {
            return wrong(
                fmt::format("guest {}: '{}' is not the name of a bridge (at most 15 letters, digits, . _ -)",
                            guest.name, nic.bridge));
        }
        if (!nic.mac.empty() && !is_unicast_mac(nic.mac)) {
            return wrong(fmt::format("guest {}: '{}' is not a unicast address like 52:54:00:12:34:56",
                                     guest.name, nic.mac));
        }
        if (!addresses.insert(nic.mac.empty() ? mac_address(guest.uuid, i) : nic.mac).second) {
            return wrong(fmt::format("guest {}: two network cards with the address {}", guest.name, nic.mac));
        }
    }
    return {};
}

}  // namespace

bool is_bridge_name(std::string_view text) {
    return !text.empty() && text.size() <= 15 && std::ranges::all_of(text, [](char c) {
        return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
    });
}

bool is_unicast_mac(std::string_view text) {
    if (text.size() != 17) return false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (i % 3 == 2 ? c != ':' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    }
    return std::string_view("13579bdf").find(text[1]) == std::string_view::npos;
}

bool is_pinned_machine(std::string_view machine) {
    for (const std::string_view family : {"pc-q35-", "pc-i440fx-"}) {
        if (machine.starts_with(family)) return is_version(machine.substr(family.size()));
    }
    return false;
}

std::string_view to_string(Memory memory) {
    return memory == Memory::shared ? "shared" : "private";
}

std::optional<Memory> memory_of(std::string_view text) {
    for (const Memory each : {Memory::shared, Memory::private_}) {
        if (text == to_string(each)) return each;
    }
    return std::nullopt;
}

DiskProtocol disk_protocol(Memory memory, DomainType type) {
    const bool in_place = memory == Memory::shared && type == DomainType::kvm;
    return in_place ? DiskProtocol::vhost_user : DiskProtocol::nbd;
}

std::string encode_template(const Template& fixed) {
    return nlohmann::ordered_json{{"template", 2},
                                  {"machine", fixed.machine},
                                  {"clock_offset", fixed.clock_offset},
                                  {"memory", to_string(fixed.memory)}}
        .dump();
}

Result<Template> decode_template(std::string_view text) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    const auto text_of = [&json](const char* member) {
        const bool there = json.contains(member) && json[member].is_string();
        return there ? std::optional(json[member].get<std::string>()) : std::nullopt;
    };
    const int version =
        json.contains("template") && json["template"].is_number_integer() ? json["template"].get<int>() : 0;
    const auto machine = text_of("machine");
    const auto clock = text_of("clock_offset");
    std::optional<Memory> memory;
    if (version == 1) memory = Memory::private_;  // knew NBD only
    if (version == 2) memory = memory_of(text_of("memory").value_or(""));
    if (!machine || !clock || !memory || json.size() != (version == 1 ? 3U : 4U)) {
        return wrong(
            "guest template: expected version 2 with machine, clock_offset and memory (shared or "
            "private); define the guest again");
    }
    Template fixed{*machine, *clock, *memory};
    if (!is_pinned_machine(fixed.machine)) {
        return wrong(fmt::format("guest template: expected a machine like {}, not '{}'", kDefaultMachine,
                                 fixed.machine));
    }
    if (fixed.clock_offset != "utc" && fixed.clock_offset != "localtime") {
        return wrong(
            fmt::format("guest template: expected the clock utc or localtime, not '{}'", fixed.clock_offset));
    }
    return fixed;
}

std::string mac_address(const GuestId& guest, std::size_t position) {
    // The last three bytes of a version 4 UUID are all random; the position keeps a guest's cards apart.
    const auto& bytes = guest.value.bytes;
    return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", bytes[13], bytes[14], (bytes[15] + position) & 0xffU);
}

Status check_guest(const GuestRecord& guest) {
    if (!is_name(guest.name, 63)) {
        return wrong(fmt::format("expected a guest name of lower case letters, digits and dashes, not '{}'",
                                 guest.name));
    }
    if (guest.uuid.is_nil()) return wrong(fmt::format("guest {}: has no uuid", guest.name));
    if (guest.memory_bytes < kLeastMemoryBytes || guest.memory_bytes % kMiB != 0) {
        return wrong(fmt::format("guest {}: expected whole MiB of memory, at least 32, not {} bytes",
                                 guest.name, guest.memory_bytes));
    }
    if (guest.vcpus < 1 || guest.vcpus > 255) {
        return wrong(fmt::format("guest {}: expected 1 to 255 processors, not {}", guest.name, guest.vcpus));
    }
    if (auto good = check_disks(guest); !good) return good;
    if (auto good = check_nics(guest); !good) return good;
    if (auto fixed = decode_template(guest.template_text); !fixed)
        return tl::unexpected<Error>(fixed.error());
    return {};
}

Result<std::string> render_domain(const GuestRecord& guest, const Placement& placement) {
    if (auto good = check_guest(guest); !good) return tl::unexpected<Error>(good.error());
    for (const auto& disk : guest.disks) {
        const auto socket = std::ranges::find(placement.disks, disk.target, &DiskSocket::target);
        if (socket == placement.disks.end() || !is_socket_path(socket->path)) {
            return wrong(
                fmt::format("guest {}: disk {} has no socket to be reached at; is its volume served here?",
                            guest.name, disk.target));
        }
    }
    if (!placement.console_socket.empty() && !is_socket_path(placement.console_socket)) {
        return wrong(
            fmt::format("guest {}: '{}' cannot be a unix socket", guest.name, placement.console_socket));
    }
    if (placement.disks.size() != guest.disks.size()) {
        return wrong(fmt::format("guest {}: {} sockets for {} disks", guest.name, placement.disks.size(),
                                 guest.disks.size()));
    }
    const auto fixed = decode_template(guest.template_text);
    pugi::xml_document document;
    auto domain = add(document, "domain",
                      {{"type", placement.type == DomainType::kvm ? "kvm" : "qemu"},
                       {"xmlns:qemu", std::string(kQemuNamespace)}});
    add_basics(domain, guest, *fixed, placement);
    add_devices(domain, guest, *fixed, placement);
    if (placement.protocol == DiskProtocol::nbd) add_nbd_disks(domain, guest, *fixed, placement);
    struct Writer : pugi::xml_writer {
        std::string text;
        void write(const void* data, size_t size) override {
            text.append(static_cast<const char*>(data), size);
        }
    } writer;
    document.save(writer, "  ", pugi::format_indent | pugi::format_no_declaration);
    return std::move(writer.text);
}

}  // namespace gemel::guest
