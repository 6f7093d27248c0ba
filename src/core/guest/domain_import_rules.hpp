// The table behind domain_import: what becomes of each element of a libvirt domain that needs no look inside.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gemel::guest {

enum class Fate : std::uint8_t {
    read,     // taken over, by code in domain_import.cpp
    ignored,  // says nothing about the guest's hardware
    note,     // replaced by what each guest here gets
    refuse,
};

struct Rule {
    std::string_view element;
    Fate fate;
    std::string_view why;
};

// Children of <domain>.
inline constexpr auto kDomainRules = std::to_array<Rule>({
    {"name", Fate::read, ""},
    {"uuid", Fate::read, ""},
    {"memory", Fate::read, ""},
    {"vcpu", Fate::read, ""},
    {"os", Fate::read, ""},
    {"clock", Fate::read, ""},
    {"devices", Fate::read, ""},
    {"title", Fate::ignored, ""},
    {"description", Fate::ignored, ""},
    {"metadata", Fate::ignored, ""},
    {"resource", Fate::ignored, ""},
    {"seclabel", Fate::ignored, ""},
    {"on_poweroff", Fate::note, "the planner decides what follows the end of a guest"},
    {"on_reboot", Fate::note, "a reboot restarts the guest in place"},
    {"on_crash", Fate::note, "the planner decides what follows the end of a guest"},
    {"on_lockfailure", Fate::note, "leases are Gemel's"},
    {"currentMemory", Fate::note, "the guest gets all of its memory"},
    {"features", Fate::note, "acpi and apic"},
    {"cpu", Fate::note, "the host's model under KVM, qemu64 under emulation"},
    {"pm", Fate::note, "no suspend inside the guest"},
    {"perf", Fate::note, "none"},
    {"iothreads", Fate::note, "none"},
    {"iothreadids", Fate::note, "none"},
    {"blkiotune", Fate::note, "none"},
    {"memtune", Fate::note, "none"},
    {"genid", Fate::refuse, "a generation id cannot be kept; remove it"},
    {"bootloader", Fate::refuse, "a boot loader outside the disk would not be there after a failover"},
    {"bootloader_args", Fate::refuse, "a boot loader outside the disk would not be there after a failover"},
    {"memoryBacking", Fate::refuse, "hugepages and memory files belong to one host; remove it"},
    {"maxMemory", Fate::refuse, "memory cannot be plugged; remove it and set <memory>"},
    {"vcpus", Fate::refuse, "processors cannot be plugged; remove it and set <vcpu>"},
    {"cputune", Fate::refuse, "pinned processors belong to one host; remove it"},
    {"numatune", Fate::refuse, "memory nodes belong to one host; remove it"},
    {"sysinfo", Fate::refuse, "system information cannot be passed on; remove it"},
    {"launchSecurity", Fate::refuse, "encrypted memory is bound to one host's processor"},
    {"keywrap", Fate::refuse, "keys are bound to one host"},
    {"idmap", Fate::refuse, "is for containers"},
    {"throttlegroups", Fate::refuse, "limits belong to the volume; remove it"},
    {"qemu:commandline", Fate::refuse, "arguments for QEMU cannot be checked; remove it"},
    {"qemu:override", Fate::refuse, "changed QEMU properties cannot be checked; remove it"},
    {"qemu:capabilities", Fate::refuse, "changed QEMU capabilities cannot be checked; remove it"},
    {"qemu:deprecation", Fate::note, "the default behaviour"},
});

// Children of <os>.
inline constexpr auto kOsRules = std::to_array<Rule>({
    {"type", Fate::read, ""},
    {"boot", Fate::note, "the guest boots from its first disk"},
    {"bootmenu", Fate::note, "none"},
    {"bios", Fate::note, "SeaBIOS with its defaults"},
    {"loader", Fate::refuse, "the firmware file lives on one host; only SeaBIOS guests can be imported"},
    {"nvram", Fate::refuse, "firmware variables live on one host and would be lost"},
    {"firmware", Fate::refuse,
     "UEFI keeps variables in a file on one host; only SeaBIOS guests can be imported"},
    {"kernel", Fate::refuse,
     "a kernel file outside the disk would not be there; install the kernel inside the guest"},
    {"initrd", Fate::refuse,
     "an initrd file outside the disk would not be there; install it inside the guest"},
    {"cmdline", Fate::refuse, "belongs to a kernel outside the disk; set it in the guest's boot loader"},
    {"dtb", Fate::refuse, "a file outside the disk would not be there"},
    {"acpi", Fate::refuse, "an ACPI table in a file of one host would not be there"},
    {"smbios", Fate::refuse, "system information of one host would change; remove it"},
    {"init", Fate::refuse, "is for containers"},
});

// Children of <devices>.
inline constexpr auto kDeviceRules = std::to_array<Rule>({
    {"disk", Fate::read, ""},
    {"interface", Fate::read, ""},
    {"serial", Fate::read, ""},
    {"console", Fate::read, ""},
    {"parallel", Fate::read, ""},
    {"channel", Fate::read, ""},
    {"rng", Fate::read, ""},
    {"input", Fate::read, ""},
    {"redirdev", Fate::read, ""},
    {"emulator", Fate::ignored, ""},
    {"controller", Fate::note, "the controllers of the machine type"},
    {"graphics", Fate::note, "none; the console is the serial line"},
    {"video", Fate::note, "none; the console is the serial line"},
    {"sound", Fate::note, "none"},
    {"audio", Fate::note, "none"},
    {"memballoon", Fate::note, "none"},
    {"hub", Fate::note, "none"},
    {"panic", Fate::note, "none"},
    {"redirfilter", Fate::note, "none"},
    {"watchdog", Fate::refuse, "a watchdog card is not offered; remove it"},
    {"hostdev", Fate::refuse, "a host's device cannot follow the guest"},
    {"filesystem", Fate::refuse, "a host's directory is not mirrored; copy it onto a disk of the guest"},
    {"tpm", Fate::refuse, "the TPM's state lives on one host and would be lost"},
    {"nvram", Fate::refuse, "its contents live on one host and would be lost"},
    {"smartcard", Fate::refuse, "a host's card reader cannot follow the guest"},
    {"shmem", Fate::refuse, "memory shared with other guests belongs to one host"},
    {"memory", Fate::refuse, "plugged memory is not offered; set <memory> of the domain"},
    {"iommu", Fate::refuse, "is not offered; remove it"},
    {"vsock", Fate::refuse, "its address belongs to one host"},
    {"crypto", Fate::refuse, "a host's crypto device cannot follow the guest"},
    {"pstore", Fate::refuse, "its file lives on one host and would be lost"},
    {"lease", Fate::refuse, "a lock space of one host; leases are Gemel's"},
});

}  // namespace gemel::guest
