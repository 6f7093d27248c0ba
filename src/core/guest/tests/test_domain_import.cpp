// Import: each element that would not survive a failover is refused by name; none is dropped without a word.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/guest/domain_import.hpp"

namespace gemel::guest {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kDisk =
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/web.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>";

std::string domain(const std::string& top, const std::string& devices = kDisk, const std::string& os = "") {
    return "<domain type='kvm'><name>web</name><uuid>6e0d3b52-6a7e-4a51-8c33-0c1f0a4b7a11</uuid>"
           "<memory unit='GiB'>1</memory><vcpu placement='static'>2</vcpu>"
           "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>" +
           os + "</os>" + top + "<devices>" + devices + "</devices></domain>";
}

TEST(DomainImport, TakesOverWhatAGuestHereHas) {
    const auto read = read_domain(
        domain("<clock offset='localtime'/>",
               std::string(kDisk) +
                   "<disk type='block' device='disk'><source dev='/dev/vg/data'/><target dev='vdb' "
                   "bus='virtio'/></disk>"
                   "<interface type='bridge'><mac address='52:54:00:AA:BB:01'/><source bridge='br-guest'/>"
                   "<model type='virtio'/></interface><serial type='pty'/>"));
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_THAT(refusal_text(*read), IsEmpty());
    EXPECT_EQ(read->name, "web");
    EXPECT_EQ(read->uuid.to_string(), "6e0d3b52-6a7e-4a51-8c33-0c1f0a4b7a11");
    EXPECT_EQ(read->memory_bytes, 1ULL << 30U);
    EXPECT_EQ(read->vcpus, 2U);
    EXPECT_EQ(read->fixed, (Template{"pc-q35-7.2", "localtime"}));
    EXPECT_THAT(read->disks, ElementsAre(ImportedDisk{"vda", "/images/web.qcow2", "qcow2"},
                                         ImportedDisk{"vdb", "/dev/vg/data", ""}));
    EXPECT_THAT(read->nics, ElementsAre(GuestNic{"br-guest", "52:54:00:aa:bb:01"}));
}

struct Case {
    const char* what;
    std::string xml;
    const char* element;  // of the only refusal
};

class Refused : public ::testing::TestWithParam<Case> {};

TEST_P(Refused, ByName) {
    const auto read = read_domain(GetParam().xml);
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(read->refusals.size(), 1U) << refusal_text(*read);
    EXPECT_EQ(read->refusals[0].element, GetParam().element);
    EXPECT_FALSE(read->refusals[0].why.empty());
}

std::string with_device(const std::string& device) {
    return domain("", kDisk + device);
}
std::string disk_with(const std::string& child) {
    return domain(
        "", "<disk type='file'><source file='/a'/><target dev='vda' bus='virtio'/>" + child + "</disk>");
}
std::string nic(const std::string& type, const std::string& source,
                const std::string& more = "<model type='virtio'/>") {
    return with_device("<interface type='" + type + "'><mac address='52:54:00:00:00:01'/>" + source + more +
                       "</interface>");
}

INSTANTIATE_TEST_SUITE_P(
    OutsideTheDisk, Refused,
    ::testing::Values(
        Case{"nvram", domain("", kDisk, "<nvram>/var/lib/x_VARS.fd</nvram>"), "os/nvram"},
        Case{"loader", domain("", kDisk, "<loader readonly='yes' type='pflash'>/usr/share/OVMF.fd</loader>"),
             "os/loader"},
        Case{"kernel", domain("", kDisk, "<kernel>/boot/vmlinuz</kernel>"), "os/kernel"},
        Case{"initrd", domain("", kDisk, "<initrd>/boot/initrd</initrd>"), "os/initrd"},
        Case{"cmdline", domain("", kDisk, "<cmdline>quiet</cmdline>"), "os/cmdline"},
        Case{"acpi table", domain("", kDisk, "<acpi><table type='slic'>/x</table></acpi>"), "os/acpi"},
        Case{"tpm", with_device("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"),
             "devices/tpm"},
        Case{"nvram device", with_device("<nvram/>"), "devices/nvram"},
        Case{"hostdev", with_device("<hostdev mode='subsystem' type='pci'/>"), "devices/hostdev"},
        Case{"filesystem", with_device("<filesystem type='mount'><source dir='/srv'/></filesystem>"),
             "devices/filesystem"},
        Case{"shmem", with_device("<shmem name='x'/>"), "devices/shmem"},
        Case{"smartcard", with_device("<smartcard mode='host'/>"), "devices/smartcard"},
        Case{"vsock", with_device("<vsock model='virtio'/>"), "devices/vsock"},
        Case{"lease", with_device("<lease/>"), "devices/lease"},
        Case{"nvdimm", with_device("<memory model='nvdimm'/>"), "devices/memory"},
        Case{"unknown device", with_device("<teleporter/>"), "devices/teleporter"},
        Case{"egd", with_device("<rng model='virtio'><backend model='egd' type='udp'/></rng>"),
             "devices/rng"},
        Case{"evdev", with_device("<input type='evdev'><source dev='/dev/input/event1'/></input>"),
             "devices/input"},
        Case{"serial file", with_device("<serial type='file'><source path='/var/log/x'/></serial>"),
             "devices/serial"},
        Case{"serial device", with_device("<serial type='dev'><source path='/dev/ttyS1'/></serial>"),
             "devices/serial"},
        Case{"serial log", with_device("<serial type='pty'><log file='/x'/></serial>"), "devices/serial/log"},
        Case{"channel tcp",
             with_device("<channel type='tcp'><source mode='bind' host='::' service='1'/></channel>"),
             "devices/channel"},
        Case{"usb redirection", with_device("<redirdev bus='usb' type='tcp'/>"), "devices/redirdev"}));

INSTANTIATE_TEST_SUITE_P(
    Disks, Refused,
    ::testing::Values(
        Case{"cdrom",
             with_device("<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda' "
                         "bus='sata'/></disk>"),
             "devices/disk[sda]"},
        Case{"floppy",
             with_device(
                 "<disk type='file' device='floppy'><source file='/x'/><target dev='fda' bus='fdc'/></disk>"),
             "devices/disk[fda]"},
        Case{"network",
             with_device("<disk type='network' device='disk'><source protocol='rbd' name='x'/><target "
                         "dev='vdb' bus='virtio'/></disk>"),
             "devices/disk[vdb]/source"},
        Case{"vhostuser",
             with_device("<disk type='vhostuser' device='disk'><source type='unix' path='/x'/><target "
                         "dev='vdb' bus='virtio'/></disk>"),
             "devices/disk[vdb]/source"},
        Case{"relative", domain("", "<disk><source file='x'/><target dev='vda' bus='virtio'/></disk>"),
             "devices/disk[vda]/source"},
        Case{"sata", domain("", "<disk><source file='/x'/><target dev='sda' bus='sata'/></disk>"),
             "devices/disk[sda]/target"},
        Case{"twice", with_device(kDisk), "devices/disk[vda]/target"},
        Case{"none", domain("", ""), "devices/disk"},
        Case{"serial", disk_with("<serial>X1</serial>"), "devices/disk[vda]/serial"},
        Case{"shareable", disk_with("<shareable/>"), "devices/disk[vda]/shareable"},
        Case{"readonly", disk_with("<readonly/>"), "devices/disk[vda]/readonly"},
        Case{"encryption", disk_with("<encryption format='luks'/>"), "devices/disk[vda]/encryption"},
        Case{"unknown child", disk_with("<glitter/>"), "devices/disk[vda]/glitter"},
        Case{"reservations",
             domain("",
                    "<disk type='block'><source dev='/dev/sdb'><reservations managed='yes'/></source>"
                    "<target dev='vda' bus='virtio'/></disk>"),
             "devices/disk[vda]/source/reservations"}));

INSTANTIATE_TEST_SUITE_P(
    Interfaces, Refused,
    ::testing::Values(
        Case{"macvtap", nic("direct", "<source dev='eth0' mode='bridge'/>"),
             "devices/interface[52:54:00:00:00:01]"},
        Case{"libvirt network", nic("network", "<source network='default'/>"),
             "devices/interface[52:54:00:00:00:01]"},
        Case{"sr-iov", nic("hostdev", "<source/>"), "devices/interface[52:54:00:00:00:01]"},
        Case{"user", nic("user", ""), "devices/interface[52:54:00:00:00:01]"},
        Case{"bridge name", nic("bridge", "<source bridge='br guest'/>"),
             "devices/interface[52:54:00:00:00:01]/source"},
        Case{"address",
             with_device("<interface type='bridge'><mac address='01:00:5e:00:00:01'/><source bridge='b'/>"
                         "<model type='virtio'/></interface>"),
             "devices/interface[01:00:5e:00:00:01]/mac"},
        Case{"no bridge", nic("bridge", ""), "devices/interface[52:54:00:00:00:01]/source"},
        Case{"model", nic("bridge", "<source bridge='b'/>", "<model type='e1000'/>"),
             "devices/interface[52:54:00:00:00:01]/model"},
        Case{"no model", nic("bridge", "<source bridge='b'/>", ""),
             "devices/interface[52:54:00:00:00:01]/model"},
        Case{"openvswitch",
             nic("bridge", "<source bridge='b'/>", "<model type='virtio'/><virtualport type='openvswitch'/>"),
             "devices/interface[52:54:00:00:00:01]/virtualport"},
        Case{"filter", nic("bridge", "<source bridge='b'/>", "<model type='virtio'/><filterref filter='x'/>"),
             "devices/interface[52:54:00:00:00:01]/filterref"}));

INSTANTIATE_TEST_SUITE_P(
    Domain, Refused,
    ::testing::Values(
        Case{"commandline", domain("<qemu:commandline><qemu:arg value='-s'/></qemu:commandline>"),
             "qemu:commandline"},
        Case{"memory backing", domain("<memoryBacking><hugepages/></memoryBacking>"), "memoryBacking"},
        Case{"pinning", domain("<cputune><vcpupin vcpu='0' cpuset='1'/></cputune>"), "cputune"},
        Case{"launch security", domain("<launchSecurity type='sev'/>"), "launchSecurity"},
        Case{"clock", domain("<clock offset='variable' adjustment='1'/>"), "clock/@offset"},
        Case{"unknown", domain("<glitter/>"), "glitter"},
        Case{"xen", "<domain type='xen'>" + domain("").substr(19), "@type"}));

TEST(DomainImport, FirmwareAttributeIsRefused) {
    auto xml = domain("");
    xml.replace(xml.find("<os>"), 4, "<os firmware='efi'>");
    const auto read = read_domain(xml);
    ASSERT_TRUE(read);
    EXPECT_THAT(refusal_text(*read), HasSubstr("os/@firmware"));
}

TEST(DomainImport, ListsEveryReasonAtOnce) {
    const auto read =
        read_domain(domain("<cputune/>", std::string(kDisk) + "<tpm/><hostdev/>", "<nvram>/x</nvram>"));
    ASSERT_TRUE(read);
    ASSERT_EQ(read->refusals.size(), 4U) << refusal_text(*read);
    for (const char* element : {"cputune: ", "devices/tpm: ", "devices/hostdev: ", "os/nvram: "}) {
        EXPECT_THAT(refusal_text(*read), HasSubstr(element));
    }
}

TEST(DomainImport, ReplacedElementsAreNoted) {
    const auto read =
        read_domain(domain("<cpu mode='host-passthrough'/>",
                           std::string(kDisk) + "<graphics type='vnc'/><video/>"
                                                "<disk device='cdrom'><target dev='sda'/></disk>"));
    ASSERT_TRUE(read);
    EXPECT_THAT(refusal_text(*read), IsEmpty());
    std::string notes;
    for (const auto& note : read->notes) notes += note.element + " ";
    EXPECT_EQ(notes, "cpu devices/disk[vda]/driver devices/graphics devices/video devices/disk[sda] ");
}

TEST(DomainImport, AliasOfAMachineIsPinned) {
    auto xml = domain("");
    xml.replace(xml.find("pc-q35-7.2"), 10, "q35");
    const auto read = read_domain(xml);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->fixed.machine, "pc-q35-7.2");
    EXPECT_EQ(read->notes.front().element, "os/type/@machine");
}

TEST(DomainImport, SizesAndCounts) {
    const auto memory = [](const std::string& element) {
        auto xml = domain("");
        const auto at = xml.find("<memory");
        xml.replace(at, xml.find("</memory>") + 9 - at, element);
        return read_domain(xml);
    };
    EXPECT_EQ(memory("<memory>1048576</memory>")->memory_bytes, 1ULL << 30U);
    EXPECT_EQ(memory("<memory unit='b'>33554433</memory>")->memory_bytes, 33 * kMiB);
    for (const char* wrong :
         {"<memory unit='parsec'>1</memory>", "<memory>-1</memory>", "<memory>0</memory>",
          "<memory unit='MiB'>31</memory>", "<memory unit='TiB'>99999999999</memory>", "<memory/>", ""}) {
        const auto read = memory(wrong);
        ASSERT_TRUE(read);
        ASSERT_EQ(read->refusals.size(), 1U) << wrong << refusal_text(*read);
        EXPECT_EQ(read->refusals[0].element, "memory") << wrong;
    }
}

TEST(DomainImport, WhatIsNoDomainIsAnError) {
    for (const std::string& text : {std::string(), std::string("x"), std::string("<domain"),
                                    std::string("<network/>"), std::string(kMaxDomainXmlBytes + 1, ' ')}) {
        const auto read = read_domain(text);
        ASSERT_FALSE(read) << text.substr(0, 20);
        EXPECT_EQ(read.error().code, ErrorCode::invalid_argument);
        EXPECT_THAT(read.error().message, HasSubstr("expected a libvirt domain"));
    }
}

}  // namespace
}  // namespace gemel::guest
