// The adapter against a real libvirtd and a real QEMU, with a domain from core/guest's template (promise C1:
// look for a domain before starting it, and never have it twice; a disk that is not served here refuses the
// start).
#include <atomic>
#include <filesystem>
#include <memory>
#include <signal.h>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/libvirt/libvirt_hypervisor.hpp"
#include "adapters/libvirt/tests/private_libvirtd.hpp"
#include "core/guest/domain_template.hpp"

namespace gemel {
namespace {

using cluster::DomainState;
using ::testing::HasSubstr;

GuestRecord web1() {
    GuestRecord record;
    record.name = "web1";
    record.uuid = *GuestId::parse("6e0d3b52-6a7e-4a51-8c33-0c1f0a4b7a11");
    record.template_text = guest::encode_template({});
    record.memory_bytes = 64 * guest::kMiB;
    record.vcpus = 1;
    record.disks = {{"vda", "web1-root"}};
    record.nics = {{"br-guest", ""}};
    return record;
}

std::string domain_on(const std::string& socket, guest::DiskProtocol protocol = guest::DiskProtocol::nbd) {
    guest::Placement placement;
    placement.protocol = protocol;
    placement.disks = {{"vda", socket}};
    placement.console_socket = "/run/gemel/web1.console";
    auto xml = guest::render_domain(web1(), placement);
    if (!xml) throw std::runtime_error(xml.error().message);
    return *xml;
}

class LibvirtHypervisorTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        if (!test::PrivateLibvirtd::obstacle().empty()) return;
        host = std::make_unique<test::PrivateLibvirtd>();
        host->serve_disk("/run/gemel/web1-root-1-5ec2e7.sock", "web1-root");
    }
    static void TearDownTestSuite() { host.reset(); }
    void SetUp() override {
        if (!host) GTEST_SKIP() << test::PrivateLibvirtd::obstacle();
        auto opened = LibvirtHypervisor::open();
        ASSERT_TRUE(opened) << opened.error().message;
        hypervisor = std::move(*opened);
    }
    void TearDown() override {
        if (!hypervisor) return;
        EXPECT_TRUE(hypervisor->destroy(web1().uuid));
    }
    void start(bool paused) {
        auto created = hypervisor->create(domain_on("/run/gemel/web1-root-1-5ec2e7.sock"), paused);
        ASSERT_TRUE(created) << created.error().message;
        EXPECT_EQ(created->state, paused ? DomainState::paused : DomainState::running);
        EXPECT_EQ(created->kind, "qemu");
    }

    static std::unique_ptr<test::PrivateLibvirtd> host;
    std::unique_ptr<LibvirtHypervisor> hypervisor;
};
std::unique_ptr<test::PrivateLibvirtd> LibvirtHypervisorTest::host;

// A foreign server takes what libvirt and QEMU make of our domain.
TEST_F(LibvirtHypervisorTest, ADiskByVhostUser) {
    const std::string socket = "/run/gemel/vhost-web1.sock";
    host->serve_vhost_user_disk(socket);
    const auto created = hypervisor->create(domain_on(socket, guest::DiskProtocol::vhost_user), false);
    ASSERT_TRUE(created) << created.error().message;
    EXPECT_EQ(created->state, DomainState::running);
}

TEST_F(LibvirtHypervisorTest, LifeOfADomain) {
    std::atomic<int> changes = 0;
    hypervisor->on_change([&] { ++changes; });
    ASSERT_TRUE(hypervisor->list()->empty());
    ASSERT_FALSE(hypervisor->find(web1().uuid)->has_value());
    start(true);
    EXPECT_TRUE(test::wait_for([&] { return changes > 0; }));
    auto found = hypervisor->find(web1().uuid);
    ASSERT_TRUE(found && *found);
    EXPECT_EQ((*found)->name, "web1");
    EXPECT_EQ((*found)->state_text, "paused");

    ASSERT_TRUE(hypervisor->resume(web1().uuid));
    EXPECT_EQ(hypervisor->list()->at(0).state, DomainState::running);
    ASSERT_TRUE(hypervisor->suspend(web1().uuid));
    EXPECT_EQ(hypervisor->list()->at(0).reason, "user");
    ASSERT_TRUE(hypervisor->resume(web1().uuid));
    EXPECT_TRUE(hypervisor->shutdown(web1().uuid));  // nothing inside listens to the button

    ASSERT_TRUE(hypervisor->destroy(web1().uuid));
    EXPECT_FALSE(hypervisor->find(web1().uuid)->has_value());
    EXPECT_TRUE(hypervisor->destroy(web1().uuid)) << "what is gone is destroyed";
    EXPECT_EQ(hypervisor->suspend(web1().uuid).error().code, ErrorCode::not_found);
}

TEST_F(LibvirtHypervisorTest, ConsoleProcessAndNetworkAreFound) {
    start(false);
    const auto console = hypervisor->console(web1().uuid);
    ASSERT_TRUE(console) << console.error().message;
    EXPECT_EQ(console->kind, "unix");
    EXPECT_TRUE(std::filesystem::is_socket(console->path)) << console->path;
    const auto process = hypervisor->process(web1().uuid);
    ASSERT_TRUE(process) << process.error().message;
    EXPECT_THAT(std::filesystem::read_symlink("/proc/" + std::to_string(*process) + "/exe").string(),
                HasSubstr("qemu-system"));
    const auto interfaces = hypervisor->host_interfaces(web1().uuid);
    ASSERT_TRUE(interfaces && interfaces->size() == 1);
    const auto down = hypervisor->set_links(web1().uuid, false);
    EXPECT_TRUE(down) << down.error().message;
    const auto up = hypervisor->set_links(web1().uuid, true);
    EXPECT_TRUE(up) << up.error().message;
}

TEST_F(LibvirtHypervisorTest, NeverTwice) {
    start(false);
    const auto again = hypervisor->create(domain_on("/run/gemel/web1-root-1-5ec2e7.sock"), false);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
    EXPECT_EQ(hypervisor->list()->size(), 1U);
}

TEST_F(LibvirtHypervisorTest, NoServedDiskNoDomain) {
    const auto refused = hypervisor->create(domain_on("/run/gemel/web1-root-2-other.sock"), false);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("starting domain web1"));
    EXPECT_THAT(refused.error().message, testing::Not(HasSubstr("\n")));
    EXPECT_FALSE(hypervisor->find(web1().uuid)->has_value());
}

TEST_F(LibvirtHypervisorTest, DaemonMayBeKilledUnderAGuest) {
    start(false);
    const auto before = hypervisor->process(web1().uuid);
    std::atomic<int> changes = 0;
    hypervisor->on_change([&] { ++changes; });
    host->kill_libvirtd();
    EXPECT_TRUE(test::wait_for([&] { return changes > 0; })) << "the loss of the connection is told";
    const auto refused = hypervisor->list();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
    host->start_libvirtd();
    ASSERT_TRUE(test::wait_for([&] {
        auto found = hypervisor->find(web1().uuid);
        return found && *found && (*found)->state == DomainState::running;
    }));
    EXPECT_EQ(*hypervisor->process(web1().uuid), *before);
}

TEST_F(LibvirtHypervisorTest, KnowsItsMachineTypes) {
    const auto version = hypervisor->version();
    ASSERT_TRUE(version) << version.error().message;
    EXPECT_THAT(version->machines, testing::Contains(std::string(guest::kDefaultMachine)));
    EXPECT_THAT(version->qemu, HasSubstr("."));
}

}  // namespace
}  // namespace gemel
