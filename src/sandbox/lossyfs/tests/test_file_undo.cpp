// What a power cut may and may not do to a file's content. The disk is a test instrument: if it kept
// everything, or lost what was synced, every test that stands on it would mean nothing.
#include <cstdlib>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "sandbox/lossyfs/file_undo.hpp"

namespace gemel::lossyfs {
namespace {

constexpr std::uint64_t kSeeds = 200;

class TemporaryFile {
  public:
    TemporaryFile() {
        std::string path = ::testing::TempDir() + "lossyfs-" + std::string(6, 'X');
        fd_ = ::mkstemp(path.data());
        ::unlink(path.c_str());
    }
    ~TemporaryFile() { ::close(fd_); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;
    int fd() const { return fd_; }
    std::string content() const {
        std::string text(1U << 16, '\0');
        const ssize_t got = ::pread(fd_, text.data(), text.size(), 0);
        text.resize(static_cast<std::size_t>(got));
        return text;
    }
    void put(std::uint64_t offset, const std::string& text) const {
        EXPECT_EQ(::pwrite(fd_, text.data(), text.size(), static_cast<off_t>(offset)),
                  static_cast<ssize_t>(text.size()));
    }

  private:
    int fd_;
};

// A file of 8 stable sectors 'a', then unsynced 'b' over sectors 2 to 5 and an unsynced tail of two sectors
// 'c'.
std::string cut_once(std::uint64_t seed, LossReport& report) {
    const TemporaryFile file;
    file.put(0, std::string(8 * kSectorBytes, 'a'));
    FileUndo undo(8 * kSectorBytes);
    undo.before_change(file.fd(), 2 * kSectorBytes, 4 * kSectorBytes);
    file.put(2 * kSectorBytes, std::string(4 * kSectorBytes, 'b'));
    undo.before_change(file.fd(), 8 * kSectorBytes, 2 * kSectorBytes);
    file.put(8 * kSectorBytes, std::string(2 * kSectorBytes, 'c'));
    Prng random(seed);
    report = undo.lose(file.fd(), random);
    return file.content();
}

TEST(FileUndo, TakesBackWholeSectorsAndOnlyUnsyncedOnes) {
    int nothing_lost = 0;
    int all_lost = 0;
    int torn = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        LossReport report;
        const std::string content = cut_once(seed, report);
        ASSERT_GE(content.size(), 8 * kSectorBytes) << "seed " << seed;
        ASSERT_LE(content.size(), 10 * kSectorBytes) << "seed " << seed;
        int new_sectors = 0;
        for (std::size_t sector = 0; sector < content.size() / kSectorBytes; ++sector) {
            const std::string text = content.substr(sector * kSectorBytes, kSectorBytes);
            const bool overwritten = sector >= 2 && sector < 6;
            const bool appended = sector >= 8;
            const char fresh = overwritten ? 'b' : 'c';
            const char old = appended ? '\0' : 'a';
            const bool is_new = (overwritten || appended) && text == std::string(kSectorBytes, fresh);
            ASSERT_TRUE(is_new || text == std::string(kSectorBytes, old))
                << "seed " << seed << " sector " << sector;
            new_sectors += is_new ? 1 : 0;
        }
        EXPECT_EQ(report.unsynced_sectors, 6U);
        EXPECT_EQ(report.lost_sectors, static_cast<std::uint64_t>(6 - new_sectors)) << "seed " << seed;
        nothing_lost += new_sectors == 6 ? 1 : 0;
        all_lost += new_sectors == 0 ? 1 : 0;
        torn += new_sectors > 0 && new_sectors < 6 ? 1 : 0;
    }
    EXPECT_GT(nothing_lost, 20);
    EXPECT_GT(all_lost, 40);
    EXPECT_GT(torn, 40);
}

TEST(FileUndo, SameSeedLosesTheSame) {
    LossReport report;
    for (std::uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(cut_once(seed, report), cut_once(seed, report));
}

TEST(FileUndo, ForgottenChangesAreStable) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const TemporaryFile file;
        FileUndo undo(0);
        undo.before_change(file.fd(), 0, 1000);
        file.put(0, std::string(1000, 'x'));
        undo.forget(1000);
        Prng random(seed);
        undo.lose(file.fd(), random);
        ASSERT_EQ(file.content(), std::string(1000, 'x')) << "seed " << seed;
    }
}

// O_DSYNC makes its own range stable and nothing else (an earlier buffered write of the same page is still
// lost).
TEST(FileUndo, SettledRangeSurvivesAlone) {
    int neighbour_lost = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const TemporaryFile file;
        file.put(0, std::string(4 * kSectorBytes, 'a'));
        FileUndo undo(4 * kSectorBytes);
        undo.before_change(file.fd(), 0, kSectorBytes);
        file.put(0, std::string(kSectorBytes, 'b'));
        undo.before_change(file.fd(), kSectorBytes, kSectorBytes);
        file.put(kSectorBytes, std::string(kSectorBytes, 's'));
        undo.settle(file.fd(), kSectorBytes, kSectorBytes);
        undo.before_change(file.fd(), kSectorBytes, kSectorBytes);
        file.put(kSectorBytes, std::string(kSectorBytes, 't'));
        Prng random(seed);
        undo.lose(file.fd(), random);
        const std::string content = file.content();
        ASSERT_TRUE(content[kSectorBytes] == 's' || content[kSectorBytes] == 't') << "seed " << seed;
        neighbour_lost += content[0] == 'a' ? 1 : 0;
    }
    EXPECT_GT(neighbour_lost, 40);
}

}  // namespace
}  // namespace gemel::lossyfs
