// From a guest's record to the libvirt domain that runs it. Pure: text in, text out.
//
// Promises: the domain holds nothing that belongs to one host; its machine type is the one pinned when the
// guest was defined, every device has a fixed address, so that the guest finds the same hardware on every
// node; each disk is served on a unix socket, by vhost-user where the guest's memory is shared with the
// server and by NBD where it is private, announced to the guest as a disk with a volatile cache (FLUSH
// reaches the server), and a server that dies is waited for without an error inside the guest. Not here:
// reading foreign domains (domain_import.hpp), talking to libvirt (adapters/libvirt). Design:
// docs/design/0008-guests.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "core/formats/records.hpp"

namespace gemel::guest {

enum class DomainType : std::uint8_t { qemu, kvm };

inline constexpr std::size_t kMaxDisks = 16;
inline constexpr std::size_t kMaxNics = 8;
inline constexpr std::uint64_t kMiB = 1U << 20U;
inline constexpr std::string_view kDefaultMachine = "pc-q35-7.2";

// shared: with the disk's server, which reads and writes it in place (vhost-user); the kernel never merges
// its pages with others (KSM). private: QEMU's own; the disk's data goes through a socket (NBD).
enum class Memory : std::uint8_t { shared, private_ };
std::string_view to_string(Memory memory);  // shared, private
std::optional<Memory> memory_of(std::string_view text);

// What is fixed when a guest is defined and kept in GuestRecord::template_text.
struct Template {
    std::string machine{kDefaultMachine};  // pc-q35-N.N or pc-i440fx-N.N, never an alias
    std::string clock_offset = "utc";      // utc, localtime
    Memory memory = Memory::shared;
    bool operator==(const Template&) const = default;
};

// The text for the store, and back. error: invalid_argument with what was expected.
std::string encode_template(const Template& fixed);
Result<Template> decode_template(std::string_view text);

// Is it a versioned machine type that domains can be rendered for?
bool is_pinned_machine(std::string_view machine);

// What a record may hold; import refuses the rest by name.
inline constexpr std::uint64_t kLeastMemoryBytes = 32 * kMiB;
bool is_bridge_name(std::string_view text);
bool is_unicast_mac(std::string_view text);  // lower case, with colons

// How the disks are reached. vhost-user needs shared memory, and KVM: QEMU's emulation is not told that
// another process wrote into the guest's memory and would go on executing what it translated before (seen: a
// boot loader that was loaded over another one). So an emulated guest gets NBD.
enum class DiskProtocol : std::uint8_t { nbd, vhost_user };
DiskProtocol disk_protocol(Memory memory, DomainType type);

struct DiskSocket {
    std::string target;            // as in the record: vda ...
    std::string path;              // unix socket of this lease epoch, of that protocol
    std::uint64_t size_bytes = 0;  // of the volume
};

struct Placement {
    DomainType type = DomainType::qemu;
    DiskProtocol protocol = DiskProtocol::nbd;
    std::vector<DiskSocket> disks;  // one for each disk of the record; the export's name is the volume's
    std::string console_socket;     // libvirt listens here for the serial line; empty: a pty
    std::string emulator = "/usr/bin/qemu-system-x86_64";
};

// The whole domain, for virDomainCreateXML. Record and placement are checked: error invalid_argument.
Result<std::string> render_domain(const GuestRecord& guest, const Placement& placement);

// Checked by render_domain as well: name, uuid, memory, processors, disks, network cards, template.
Status check_guest(const GuestRecord& guest);

// Locally administered, made from guest and position: the same on every node and at every start.
std::string mac_address(const GuestId& guest, std::size_t position);

}  // namespace gemel::guest
