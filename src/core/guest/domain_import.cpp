#include "core/guest/domain_import.hpp"

#include <algorithm>
#include <charconv>
#include <pugixml.hpp>
#include <span>

#include <fmt/format.h>

#include "core/guest/domain_import_rules.hpp"

namespace gemel::guest {

namespace {

using pugi::xml_node;

std::string text_of(const xml_node& node) {
    std::string_view text = node.text().get();
    const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    while (!text.empty() && blank(text.front())) text.remove_prefix(1);
    while (!text.empty() && blank(text.back())) text.remove_suffix(1);
    return std::string(text);
}

std::string value_of(const xml_node& node, const char* attribute) {
    return node.attribute(attribute).value();
}

std::string lower_case(std::string text) {
    std::ranges::transform(text, text.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    return text;
}

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const auto [rest, error] = std::from_chars(begin, end, number);
    return error == std::errc{} && rest == end;
}

// libvirt's units; KiB where there is none.
std::uint64_t unit_bytes(std::string_view unit) {
    struct Unit {
        std::string_view name;
        std::uint64_t bytes;
    };
    static constexpr auto kUnits = std::to_array<Unit>({{"", 1ULL << 10U},
                                                        {"b", 1},
                                                        {"bytes", 1},
                                                        {"KB", 1000},
                                                        {"k", 1ULL << 10U},
                                                        {"KiB", 1ULL << 10U},
                                                        {"MB", 1000000},
                                                        {"M", 1ULL << 20U},
                                                        {"MiB", 1ULL << 20U},
                                                        {"GB", 1000000000},
                                                        {"G", 1ULL << 30U},
                                                        {"GiB", 1ULL << 30U},
                                                        {"TB", 1000000000000},
                                                        {"T", 1ULL << 40U},
                                                        {"TiB", 1ULL << 40U}});
    const auto found = std::ranges::find(kUnits, unit, &Unit::name);
    return found == kUnits.end() ? 0 : found->bytes;
}

class Importer {
  public:
    ImportedDomain read(const xml_node& domain) {
        apply(domain, "", kDomainRules, [&](const xml_node& child) { read_domain_child(child); });
        if (!domain.child("os")) refuse("os", "expected <os><type>hvm</type></os>");
        if (out_.memory_bytes == 0 && !domain.child("memory"))
            refuse("memory", "expected the size of the memory");
        if (!domain.child("vcpu")) out_.vcpus = 1;  // libvirt's default
        if (!domain.child("name")) refuse("name", "expected a name");
        if (out_.disks.empty() && !refused_disk_)
            refuse("devices/disk", "expected at least one disk of type file or block");
        if (out_.disks.size() > kMaxDisks)
            refuse("devices/disk", fmt::format("expected at most {} disks", kMaxDisks));
        if (out_.nics.size() > kMaxNics)
            refuse("devices/interface", fmt::format("expected at most {}", kMaxNics));
        return std::move(out_);
    }

  private:
    void refuse(std::string element, std::string why) {
        out_.refusals.push_back({std::move(element), std::move(why)});
    }
    void note(std::string element, std::string why) {
        Finding finding{std::move(element), std::move(why)};
        if (std::ranges::find(out_.notes, finding) == out_.notes.end())
            out_.notes.push_back(std::move(finding));
    }

    // One step for each child element: by the table, or by `read` where the table says that code looks
    // inside.
    template <typename Read>
    void apply(const xml_node& parent, const std::string& prefix, std::span<const Rule> rules, Read read) {
        for (const auto& child : parent.children()) {
            if (child.type() != pugi::node_element) continue;
            const std::string path = prefix + child.name();
            const auto rule = std::ranges::find(rules, std::string_view(child.name()), &Rule::element);
            if (rule == rules.end()) {
                refuse(path, "unknown to this version; remove it");
                continue;
            }
            switch (rule->fate) {
                case Fate::read: read(child); break;
                case Fate::ignored: break;
                case Fate::note: note(path, std::string(rule->why)); break;
                case Fate::refuse: refuse(path, std::string(rule->why)); break;
            }
        }
    }

    void read_domain_child(const xml_node& node) {
        const std::string_view name = node.name();
        if (name == "name") {
            out_.name = text_of(node);
        } else if (name == "uuid") {
            read_uuid(node);
        } else if (name == "memory") {
            read_memory(node);
        } else if (name == "vcpu") {
            read_vcpu(node);
        } else if (name == "os") {
            read_os(node);
        } else if (name == "clock") {
            read_clock(node);
        } else {
            apply(node, "devices/", kDeviceRules, [&](const xml_node& device) { read_device(device); });
        }
    }

    void read_uuid(const xml_node& node) {
        auto id = GuestId::parse(text_of(node));
        if (!id || id->is_nil()) return refuse("uuid", fmt::format("'{}' is not a uuid", text_of(node)));
        out_.uuid = *id;
    }

    void read_memory(const xml_node& node) {
        std::uint64_t amount = 0;
        const std::uint64_t unit = unit_bytes(value_of(node, "unit"));
        const bool good =
            parse_number(text_of(node), amount) && unit != 0 && amount > 0 && amount <= (1ULL << 44U) / unit;
        if (!good)
            return refuse("memory",
                          fmt::format("'{} {}' is not a size", text_of(node), value_of(node, "unit")));
        out_.memory_bytes = (amount * unit + kMiB - 1) / kMiB * kMiB;
        if (out_.memory_bytes < kLeastMemoryBytes) refuse("memory", "expected at least 32 MiB");
        if (node.attribute("dumpCore")) note("memory/@dumpCore", "the default behaviour");
    }

    void read_vcpu(const xml_node& node) {
        if (node.attribute("cpuset"))
            refuse("vcpu/@cpuset", "pinned processors belong to one host; remove it");
        if (node.attribute("current") && value_of(node, "current") != text_of(node)) {
            refuse("vcpu/@current", "processors cannot be plugged; set the number that the guest shall have");
        }
        if (!parse_number(text_of(node), out_.vcpus) || out_.vcpus < 1 || out_.vcpus > 255) {
            refuse("vcpu", fmt::format("expected 1 to 255, not '{}'", text_of(node)));
        }
    }

    void read_os(const xml_node& node) {
        if (const auto firmware = value_of(node, "firmware"); !firmware.empty() && firmware != "bios") {
            refuse("os/@firmware",
                   "UEFI keeps variables in a file on one host; only SeaBIOS guests can be imported");
        }
        apply(node, "os/", kOsRules, [&](const xml_node& child) { read_os_type(child); });
    }

    void read_os_type(const xml_node& node) {
        if (text_of(node) != "hvm") refuse("os/type", fmt::format("expected hvm, not '{}'", text_of(node)));
        if (const auto arch = value_of(node, "arch"); !arch.empty() && arch != "x86_64") {
            refuse("os/type/@arch", fmt::format("expected x86_64, not '{}'", arch));
        }
        auto machine = value_of(node, "machine");
        if (machine.empty() || machine == "pc" || machine == "q35") {
            // An alias means something else after each upgrade of QEMU; it is pinned to what it means on
            // Debian 12.
            const std::string pinned = machine == "q35" ? "pc-q35-7.2" : "pc-i440fx-7.2";
            note("os/type/@machine", "pinned to " + pinned);
            machine = pinned;
        }
        if (!is_pinned_machine(machine)) {
            return refuse("os/type/@machine",
                          fmt::format("expected pc-q35-N.N or pc-i440fx-N.N, not '{}'", machine));
        }
        out_.fixed.machine = machine;
    }

    void read_clock(const xml_node& node) {
        const auto offset = value_of(node, "offset");
        if (offset != "utc" && offset != "localtime") {
            refuse("clock/@offset", fmt::format("expected utc or localtime, not '{}'", offset));
        } else {
            out_.fixed.clock_offset = offset;
        }
        for (const auto& child : node.children("timer"))
            note(fmt::format("clock/{}", child.name()), "the default timers");
    }

    void read_device(const xml_node& node) {
        const std::string_view name = node.name();
        if (name == "disk") {
            read_disk(node);
        } else if (name == "interface") {
            read_interface(node);
        } else if (name == "rng") {
            read_rng(node);
        } else if (name == "input") {
            const auto type = value_of(node, "type");
            if (type == "passthrough" || type == "evdev") {
                refuse("devices/input",
                       fmt::format("type {}: a host's device cannot follow the guest", type));
            } else {
                note("devices/input", "the keyboard of the machine type");
            }
        } else {
            read_character_device(node);
        }
    }

    void read_disk(const xml_node& node) {
        const auto target = value_of(node.child("target"), "dev");
        const std::string path = fmt::format("devices/disk[{}]", target);
        const std::string device = node.attribute("device").as_string("disk");
        const std::string type = node.attribute("type").as_string("file");
        const auto source = node.child("source");
        if (device == "cdrom" || device == "floppy") {
            if (source) {
                refused_disk_ = true;
                return refuse(
                    path,
                    fmt::format("{} with a host's file or device: it is not mirrored; eject it", device));
            }
            return note(path, fmt::format("no {} drive", device));
        }
        const auto before = out_.refusals.size();
        if (device != "disk") refuse(path, fmt::format("device '{}': expected disk", device));
        if (type != "file" && type != "block") {
            refuse(path + "/source",
                   fmt::format("type '{}': only a disk of type file or block can be copied into a volume",
                               type));
        }
        const auto place = value_of(source, type == "block" ? "dev" : "file");
        if ((type == "file" || type == "block") && !place.starts_with('/')) {
            refuse(path + "/source", "expected the full path of an image or block device");
        }
        const std::string bus = value_of(node.child("target"), "bus");
        if (bus != "virtio" && !(bus.empty() && target.starts_with("vd"))) {
            refuse(path + "/target",
                   fmt::format("bus '{}': expected virtio; change it in the guest first", bus));
        } else if (target.size() != 3 || !target.starts_with("vd") || target[2] < 'a' || target[2] > 'z') {
            refuse(path + "/target", fmt::format("'{}': expected vda to vdz", target));
        } else if (std::ranges::find(out_.disks, target, &ImportedDisk::target) != out_.disks.end()) {
            refuse(path + "/target", "occurs twice");
        }
        read_disk_children(node, path);
        refused_disk_ = refused_disk_ || out_.refusals.size() != before;
        if (out_.refusals.size() == before)
            out_.disks.push_back({target, place, value_of(node.child("driver"), "type")});
    }

    void read_disk_children(const xml_node& node, const std::string& path) {
        static constexpr auto kRules = std::to_array<Rule>({
            {"source", Fate::read, ""},
            {"target", Fate::ignored, ""},
            {"alias", Fate::ignored, ""},
            {"backingStore", Fate::ignored, ""},  // copying follows the chain
            {"driver", Fate::note, "write-back cache with FLUSH, discard"},
            {"boot", Fate::note, "the guest boots from its first disk"},
            {"address", Fate::note, "a fixed address on the root bus"},
            {"iotune", Fate::note, "none"},
            {"blockio", Fate::note, "blocks of 512 bytes"},
            {"serial", Fate::refuse,
             "a serial number is not offered; remove it (and /dev/disk/by-id in the guest)"},
            {"wwn", Fate::refuse, "a world wide name is not offered; remove it"},
            {"vendor", Fate::ignored, ""},
            {"product", Fate::ignored, ""},
            {"shareable", Fate::refuse, "a disk has one writer"},
            {"readonly", Fate::refuse, "a read-only disk is not offered; remove it"},
            {"transient", Fate::refuse, "a disk that forgets is not offered; remove it"},
            {"encryption", Fate::refuse, "the key lives on one host; encrypt inside the guest"},
            {"auth", Fate::refuse, "the secret lives on one host"},
            {"mirror", Fate::refuse, "a copy job is running; wait for its end"},
            {"geometry", Fate::refuse, "a geometry is not offered; remove it"},
        });
        apply(node, path + "/", kRules, [&](const xml_node& source) {
            for (const auto& child : source.children()) {
                if (child.type() == pugi::node_element && std::string_view(child.name()) != "seclabel") {
                    refuse(fmt::format("{}/source/{}", path, child.name()), "belongs to one host; remove it");
                }
            }
        });
    }

    void read_interface(const xml_node& node) {
        static constexpr auto kRules = std::to_array<Rule>({
            {"mac", Fate::ignored, ""},
            {"model", Fate::ignored, ""},
            {"target", Fate::ignored, ""},
            {"alias", Fate::ignored, ""},
            {"source", Fate::ignored, ""},
            {"address", Fate::note, "a fixed address on the root bus"},
            {"boot", Fate::note, "the guest boots from its first disk"},
            {"driver", Fate::note, "the default driver settings"},
            {"link", Fate::note, "the cable is plugged"},
            {"bandwidth", Fate::note, "no limit"},
            {"tune", Fate::note, "the default settings"},
            {"rom", Fate::note, "no network boot"},
            {"coalesce", Fate::note, "the default settings"},
            {"virtualport", Fate::refuse,
             "a port of one host's switch; use a plain bridge that every node has"},
            {"vlan", Fate::refuse, "VLAN tags are the bridge's; remove it"},
            {"filterref", Fate::refuse, "a filter defined on one host"},
            {"script", Fate::refuse, "a script of one host"},
            {"downscript", Fate::refuse, "a script of one host"},
            {"backend", Fate::refuse, "a file of one host"},
            {"mtu", Fate::refuse, "the bridge's; remove it"},
            {"port", Fate::refuse, "a port of one host's switch"},
            {"teaming", Fate::refuse, "a host's device cannot follow the guest"},
            {"ip", Fate::refuse, "set the address inside the guest"},
            {"route", Fate::refuse, "set the route inside the guest"},
        });
        const auto mac = value_of(node.child("mac"), "address");
        const auto type = value_of(node, "type");
        const std::string path =
            mac.empty() ? "devices/interface" : fmt::format("devices/interface[{}]", mac);
        const auto before = out_.refusals.size();
        const auto bridge = value_of(node.child("source"), "bridge");
        if (type != "bridge") {
            refuse(path,
                   fmt::format(
                       "type '{}' is bound to one host; use type bridge with a bridge that every node has",
                       type));
        } else if (!is_bridge_name(bridge)) {
            refuse(path + "/source", fmt::format("'{}' is not the name of a bridge", bridge));
        }
        if (const auto model = value_of(node.child("model"), "type"); model != "virtio") {
            refuse(path + "/model",
                   fmt::format("'{}': expected virtio; change it in the guest first", model));
        }
        apply(node, path + "/", kRules, [](const xml_node&) {});
        const std::string lower = lower_case(mac);
        if (!mac.empty() && !is_unicast_mac(lower))
            refuse(path + "/mac", "expected a unicast address like 52:54:00:12:34:56");
        if (!lower.empty() && std::ranges::find(out_.nics, lower, &GuestNic::mac) != out_.nics.end()) {
            refuse(path + "/mac", "occurs twice");
        }
        if (out_.refusals.size() == before) out_.nics.push_back({bridge, lower});
    }

    void read_rng(const xml_node& node) {
        const auto backend = node.child("backend");
        const auto path = text_of(backend);
        if (value_of(backend, "model") == "random" &&
            (path.empty() || path == "/dev/urandom" || path == "/dev/random")) {
            return note("devices/rng", "a virtio source of the host's /dev/urandom");
        }
        refuse("devices/rng", "the source of randomness lives on one host; use /dev/urandom");
    }

    // serial, console, parallel, channel, redirdev: harmless where the other end is made anew at each start.
    void read_character_device(const xml_node& node) {
        const auto type = value_of(node, "type");
        const std::string path = fmt::format("devices/{}", node.name());
        const auto source_path = value_of(node.child("source"), "path");
        const bool made_by_libvirt =
            type == "unix" && (source_path.empty() || source_path.starts_with("/var/lib/libvirt/") ||
                               source_path.starts_with("/run/libvirt/"));
        if (type == "pty" || type == "spicevmc" || type == "null" || type == "vc" || made_by_libvirt) {
            if (node.child("log")) refuse(path + "/log", "a file of one host; remove it");
            const bool line =
                node.name() == std::string_view("serial") || node.name() == std::string_view("console");
            return note(path, line ? "one serial line: gemel vm console" : "none");
        }
        refuse(path, fmt::format("type '{}' is bound to one host; use pty", type));
    }

    ImportedDomain out_;
    bool refused_disk_ = false;
};

}  // namespace

Result<ImportedDomain> read_domain(std::string_view xml) {
    if (xml.size() > kMaxDomainXmlBytes) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("expected a libvirt domain of at most {} KiB, not {} bytes",
                                kMaxDomainXmlBytes >> 10U, xml.size()));
    }
    pugi::xml_document document;
    const auto parsed =
        document.load_buffer(xml.data(), xml.size(), pugi::parse_default, pugi::encoding_utf8);
    if (!parsed) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("expected a libvirt domain (virsh dumpxml); not XML at byte {}: {}",
                                parsed.offset, parsed.description()));
    }
    const auto root = document.document_element();
    if (std::string_view(root.name()) != "domain") {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("expected a libvirt domain (virsh dumpxml), not <{}>", root.name()));
    }
    auto domain = Importer().read(root);
    if (const std::string type = value_of(root, "type"); type != "kvm" && type != "qemu") {
        domain.refusals.push_back(
            {"@type", fmt::format("expected a domain of type kvm or qemu, not '{}'", type)});
    }
    return domain;
}

std::string refusal_text(const ImportedDomain& domain) {
    std::string text;
    for (const auto& refusal : domain.refusals) {
        text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", refusal.element, refusal.why);
    }
    return text;
}

}  // namespace gemel::guest
