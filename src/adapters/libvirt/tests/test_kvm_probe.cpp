// The probe for a working KVM: the program itself is right (QEMU's emulator runs it to its end), a processor
// that does not get through in time is a "no", the verdict is kept for this boot only.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/libvirt/kvm_payload.hpp"
#include "adapters/libvirt/kvm_probe.hpp"

namespace gemel {
namespace {

using ::testing::HasSubstr;

class KvmProbe : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "gemel-kvm-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        directory = name;
    }
    void TearDown() override { std::filesystem::remove_all(directory); }
    std::string file(const std::string& name) const {
        std::ifstream stream(directory + "/" + name);
        return {std::istreambuf_iterator<char>(stream), {}};
    }
    void write(const std::string& text) const { std::ofstream(directory + "/kvm-probe") << text; }
    static std::string boot() {
        std::ifstream stream("/proc/sys/kernel/random/boot_id");
        std::string id;
        stream >> id;
        return id;
    }
    std::string directory;
    const std::string qemu = "/usr/bin/qemu-system-x86_64";
};

TEST_F(KvmProbe, ProgramReachesItsEndOnARealProcessor) {
    const auto verdict = run_probe(directory, qemu, "tcg", std::chrono::milliseconds(60000));
    EXPECT_TRUE(verdict.works) << verdict.why;
    EXPECT_TRUE(std::filesystem::is_empty(directory)) << "nothing is left behind";
}

TEST_F(KvmProbe, TooSlowIsNo) {
    const auto verdict = run_probe(directory, qemu, "tcg", std::chrono::milliseconds(1));
    EXPECT_FALSE(verdict.works);
    EXPECT_THAT(verdict.why, HasSubstr("did not end within 1 ms"));
}

TEST_F(KvmProbe, BrokenEmulatorIsNo) {
    EXPECT_THAT(run_probe(directory, "/bin/false", "kvm", std::chrono::milliseconds(1000)).why,
                HasSubstr("status 1"));
    EXPECT_THAT(run_probe(directory, "/no/such/qemu", "kvm", std::chrono::milliseconds(1000)).why,
                HasSubstr("cannot be started"));
    EXPECT_THAT(run_probe("/no/such/directory", qemu, "kvm", std::chrono::milliseconds(1000)).why,
                HasSubstr("cannot write"));
}

TEST_F(KvmProbe, VerdictOfThisBootIsKept) {
    write(boot() + " works\n");
    EXPECT_EQ(probe_kvm(directory, "/bin/false"), (KvmVerdict{true, "", true}));
    write(boot() + " no because\n");
    EXPECT_EQ(probe_kvm(directory, "/bin/false"), (KvmVerdict{false, "because", true}));
}

TEST_F(KvmProbe, OtherVerdictsAreNot) {
    for (const std::string& text : {std::string("00000000-0000-4000-8000-000000000000 works\n"),
                                    boot() + " works", boot(), std::string()}) {
        write(text);
        const auto verdict = probe_kvm(directory, "/bin/false");
        EXPECT_FALSE(verdict.works) << text;
        EXPECT_FALSE(verdict.cached) << text;
    }
    if (std::filesystem::exists("/dev/kvm") && geteuid() == 0) {
        EXPECT_THAT(file("kvm-probe"), HasSubstr(boot() + " no "));
    }
}

TEST_F(KvmProbe, FirmwareStartsAtTheResetVector) {
    const auto image = kvm_probe_firmware();
    ASSERT_EQ(image.size(), 65536U);
    EXPECT_EQ(image.substr(65520, 5), std::string("\xea\x00\x00\x00\xf0", 5));
    EXPECT_EQ(image[0], '\xfa') << "cli";
}

}  // namespace
}  // namespace gemel
