// The domain rendered from a record: what must be in it for promises D14 (FLUSH reaches us), C1 (one runner:
// the disk is the epoch's socket) and for a restart of the disk's server without an error in the guest.
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/guest/domain_template.hpp"

namespace gemel::guest {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

GuestRecord web1() {
    GuestRecord guest;
    guest.name = "web1";
    guest.uuid = *GuestId::parse("6e0d3b52-6a7e-4a51-8c33-0c1f0a4b7a11");
    guest.template_text = encode_template({});
    guest.memory_bytes = 512 * kMiB;
    guest.vcpus = 1;
    guest.disks = {{"vda", "web1-root"}};
    guest.nics = {{"br-guest", "52:54:00:aa:bb:01"}};
    return guest;
}

Placement here() {
    Placement placement;
    placement.disks = {{"vda", "/run/gemel/nbd/web1-root-7-5ec2e7.sock"}};
    return placement;
}

TEST(DomainTemplate, DiskIsTheEpochsSocketWithVolatileCacheAndWaitsForItsServer) {
    const auto xml = render_domain(web1(), here());
    ASSERT_TRUE(xml) << xml.error().message;
    EXPECT_THAT(*xml, HasSubstr("&quot;path&quot;:&quot;/run/gemel/nbd/web1-root-7-5ec2e7.sock&quot;"));
    EXPECT_THAT(*xml, HasSubstr("&quot;export&quot;:&quot;web1-root&quot;"));
    EXPECT_THAT(*xml, HasSubstr("&quot;reconnect-delay&quot;:31536000"));
    EXPECT_THAT(*xml, HasSubstr("&quot;no-flush&quot;:false"));
    EXPECT_THAT(*xml, HasSubstr("&quot;discard&quot;:&quot;unmap&quot;"));
    EXPECT_THAT(
        *xml,
        HasSubstr(
            "virtio-blk-pci,drive=gemel-vda,id=disk-vda,bus=pcie.0,addr=0xb,bootindex=1,write-cache=on"));
    EXPECT_THAT(*xml, Not(HasSubstr("<disk")));
}

TEST(DomainTemplate, VhostUserIsForSharedMemoryUnderKvm) {
    EXPECT_EQ(disk_protocol(Memory::shared, DomainType::kvm), DiskProtocol::vhost_user);
    EXPECT_EQ(disk_protocol(Memory::shared, DomainType::qemu), DiskProtocol::nbd);
    EXPECT_EQ(disk_protocol(Memory::private_, DomainType::kvm), DiskProtocol::nbd);
    auto guest = web1();
    guest.vcpus = 4;
    auto placement = here();
    placement.protocol = DiskProtocol::vhost_user;
    placement.disks = {{"vda", "/run/gemel/vhost/web1-root-7-5ec2e7.sock"}};
    const auto xml = render_domain(guest, placement);
    ASSERT_TRUE(xml) << xml.error().message;
    EXPECT_THAT(*xml, HasSubstr("<source type=\"memfd\" />"));
    EXPECT_THAT(*xml, HasSubstr("<access mode=\"shared\" />"));
    EXPECT_THAT(*xml, HasSubstr("<disk type=\"vhostuser\" device=\"disk\" snapshot=\"no\">"));
    EXPECT_THAT(*xml, HasSubstr("<source type=\"unix\" path=\"/run/gemel/vhost/web1-root-7-5ec2e7.sock\">"));
    EXPECT_THAT(*xml, HasSubstr("<reconnect enabled=\"yes\" timeout=\"1\" />"));
    EXPECT_THAT(*xml, HasSubstr("queues=\"4\""));
    EXPECT_THAT(*xml, HasSubstr("slot=\"11\"")) << "where the disk of private memory is too";
    EXPECT_THAT(*xml, Not(HasSubstr("qemu:arg")));
    guest.vcpus = 64;
    EXPECT_THAT(*render_domain(guest, placement), HasSubstr("queues=\"16\""));
}

TEST(DomainTemplate, TypeFollowsTheNodeAndNothingElseOfTheHardwareDoes) {
    auto placement = here();
    const auto emulated = render_domain(web1(), placement);
    placement.type = DomainType::kvm;
    const auto accelerated = render_domain(web1(), placement);
    ASSERT_TRUE(emulated && accelerated);
    EXPECT_THAT(*emulated, HasSubstr("<domain type=\"qemu\""));
    EXPECT_THAT(*emulated, HasSubstr("<model fallback=\"forbid\">qemu64</model>"));
    EXPECT_THAT(*accelerated, HasSubstr("<domain type=\"kvm\""));
    EXPECT_THAT(*accelerated, HasSubstr("mode=\"host-model\""));
    EXPECT_EQ(emulated->substr(emulated->find("<devices>")),
              accelerated->substr(accelerated->find("<devices>")));
}

TEST(DomainTemplate, SameRecordGivesSameTextAndFixedAddresses) {
    EXPECT_EQ(*render_domain(web1(), here()), *render_domain(web1(), here()));
    auto guest = web1();
    guest.nics.push_back({"br-guest", ""});
    guest.disks.push_back({"vdc", "web1-data"});
    auto placement = here();
    placement.disks.push_back({"vdc", "/run/gemel/nbd/web1-data-3-ab.sock"});
    const auto xml = render_domain(guest, placement);
    ASSERT_TRUE(xml) << xml.error().message;
    EXPECT_THAT(*xml, HasSubstr("slot=\"3\""));
    EXPECT_THAT(*xml, HasSubstr("slot=\"4\""));
    EXPECT_THAT(*xml, HasSubstr("<mac address=\"52:54:00:4b:7a:12\" />"));
    EXPECT_THAT(*xml, HasSubstr("id=disk-vdc,bus=pcie.0,addr=0xc,bootindex=2"));
}

TEST(DomainTemplate, ConsoleIsASocketOrAPty) {
    auto placement = here();
    EXPECT_THAT(*render_domain(web1(), placement), HasSubstr("<serial type=\"pty\">"));
    placement.console_socket = "/run/gemel/console/web1.sock";
    EXPECT_THAT(*render_domain(web1(), placement),
                HasSubstr("<source mode=\"bind\" path=\"/run/gemel/console/web1.sock\" />"));
}

TEST(DomainTemplate, OldChipsetHasItsOwnBus) {
    auto guest = web1();
    guest.template_text = encode_template({"pc-i440fx-7.2", "localtime"});
    const auto xml = render_domain(guest, here());
    ASSERT_TRUE(xml) << xml.error().message;
    EXPECT_THAT(*xml, HasSubstr("bus=pci.0,"));
    EXPECT_THAT(*xml, HasSubstr("model=\"pci-root\""));
    EXPECT_THAT(*xml, HasSubstr("<clock offset=\"localtime\" />"));
}

TEST(DomainTemplate, TemplateTextIsReadBackExactly) {
    for (const Memory memory : {Memory::shared, Memory::private_}) {
        const Template fixed{"pc-i440fx-6.1", "localtime", memory};
        EXPECT_EQ(*decode_template(encode_template(fixed)), fixed);
    }
    EXPECT_EQ(*decode_template("{\"template\":1,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"utc\"}"),
              (Template{"pc-q35-7.2", "utc", Memory::private_}))
        << "what was defined when there was NBD only";
    for (const char* text :
         {"", "{}", "[]", "{\"template\":2,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"utc\"}",
          "{\"template\":3,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"utc\",\"memory\":\"shared\"}",
          "{\"template\":2,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"utc\",\"memory\":\"lent\"}",
          "{\"template\":1,\"machine\":\"q35\",\"clock_offset\":\"utc\"}",
          "{\"template\":1,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"moon\"}",
          "{\"template\":1,\"machine\":7,\"clock_offset\":\"utc\"}",
          "{\"template\":1,\"machine\":\"pc-q35-7.2\",\"clock_offset\":\"utc\",\"more\":1}"}) {
        EXPECT_FALSE(decode_template(text)) << text;
    }
}

struct Bad {
    const char* what;
    std::function<void(GuestRecord&, Placement&)> spoil;
    const char* message;
};

TEST(DomainTemplate, WrongRecordsAreRefusedWithOneLine) {
    const Bad cases[] = {
        {"name", [](auto& g, auto&) { g.name = "Web 1"; }, "guest name"},
        {"uuid", [](auto& g, auto&) { g.uuid = {}; }, "no uuid"},
        {"memory", [](auto& g, auto&) { g.memory_bytes = 512 * kMiB + 1; }, "whole MiB"},
        {"processors", [](auto& g, auto&) { g.vcpus = 0; }, "1 to 255"},
        {"no disk", [](auto& g, auto&) { g.disks.clear(); }, "1 to 16 disks"},
        {"target", [](auto& g, auto&) { g.disks[0].target = "sda"; }, "vda to vdz"},
        {"target twice",
         [](auto& g, auto&) {
             g.disks.push_back({"vda", "other"});
         },
         "each once"},
        {"volume", [](auto& g, auto&) { g.disks[0].volume = "a\"b"; }, "name of a volume"},
        {"volume twice",
         [](auto& g, auto&) {
             g.disks.push_back({"vdb", "web1-root"});
         },
         "volume of its own"},
        {"bridge", [](auto& g, auto&) { g.nics[0].bridge = "br guest"; }, "name of a bridge"},
        {"multicast", [](auto& g, auto&) { g.nics[0].mac = "53:54:00:00:00:01"; }, "unicast"},
        {"short mac", [](auto& g, auto&) { g.nics[0].mac = "52:54:00"; }, "unicast"},
        {"mac twice", [](auto& g, auto&) { g.nics.push_back(g.nics[0]); }, "two network cards"},
        {"template", [](auto& g, auto&) { g.template_text = "<domain/>"; }, "guest template"},
        {"no socket", [](auto&, auto& p) { p.disks.clear(); }, "no socket"},
        {"relative socket", [](auto&, auto& p) { p.disks[0].path = "x.sock"; }, "no socket"},
        {"odd socket", [](auto&, auto& p) { p.disks[0].path = "/run/\xff"; }, "no socket"},
        {"one socket too many",
         [](auto&, auto& p) {
             p.disks.push_back({"vdb", "/run/b"});
         },
         "2 sockets for 1 disks"},
        {"console", [](auto&, auto& p) { p.console_socket = "relative"; }, "cannot be a unix socket"},
    };
    for (const auto& bad : cases) {
        auto guest = web1();
        auto placement = here();
        bad.spoil(guest, placement);
        const auto xml = render_domain(guest, placement);
        ASSERT_FALSE(xml) << bad.what;
        EXPECT_EQ(xml.error().code, ErrorCode::invalid_argument) << bad.what;
        EXPECT_THAT(xml.error().message, HasSubstr(bad.message)) << bad.what;
        EXPECT_THAT(xml.error().message, Not(HasSubstr("\n"))) << bad.what;
    }
}

}  // namespace
}  // namespace gemel::guest
