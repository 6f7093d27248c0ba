// Names and content together: what fsync promises, and the order in which names become stable.
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "sandbox/lossyfs/tree.hpp"

namespace gemel::lossyfs {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kSeeds = 100;

class LossyTree : public ::testing::Test {
  protected:
    void start(bool ignore_syncs = false) {
        base_ = fs::path(::testing::TempDir()) / ("lossytree-" + std::to_string(::getpid()));
        fs::remove_all(base_);
        fs::create_directories(base_ / "disk");
        fs::create_directories(base_ / "trash");
        tree_ = std::make_unique<Tree>(base_ / "disk", base_ / "trash", ignore_syncs);
    }
    void TearDown() override {
        tree_.reset();
        fs::remove_all(base_);
    }
    NodePtr make(const char* name, const std::string& text) {
        NodePtr node;
        EXPECT_EQ(tree_->make_file(tree_->root(), name, S_IFREG | 0600, 0, node), 0);
        put(node, text);
        return node;
    }
    void put(const NodePtr& node, const std::string& text) {
        EXPECT_EQ(tree_->write(node, text.data(), text.size(), 0, false), static_cast<ssize_t>(text.size()));
    }
    std::string content(const char* name) const {
        std::ifstream file(base_ / "disk" / name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    bool exists(const char* name) const { return fs::exists(base_ / "disk" / name); }

    fs::path base_;
    std::unique_ptr<Tree> tree_;
};

TEST_F(LossyTree, SyncedFileAlwaysSurvivesAndUnsyncedSometimesNot) {
    int vanished = 0;
    int survived = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        const NodePtr kept = make("kept", "acknowledged");
        EXPECT_EQ(tree_->sync(kept), 0);
        make("careless", "never synced");
        tree_->power_cut(seed);
        ASSERT_EQ(content("kept"), "acknowledged") << "seed " << seed;
        vanished += exists("careless") ? 0 : 1;
        survived += content("careless") == "never synced" ? 1 : 0;
    }
    EXPECT_GT(vanished, 20);
    EXPECT_GT(survived, 2);
}

// The control experiment: a program whose syncs do nothing must be seen to lose what it synced.
TEST_F(LossyTree, IgnoredSyncsMakeNothingStable) {
    int lost = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start(true);
        const NodePtr file = make("kept", "acknowledged");
        EXPECT_EQ(tree_->sync(file), 0);
        tree_->power_cut(seed);
        lost += content("kept") == "acknowledged" ? 0 : 1;
    }
    EXPECT_GT(lost, 20);
}

// The classic bug: write a new file, rename it over the old one, no fsync. Sometimes neither content is
// there.
TEST_F(LossyTree, RenameWithoutSyncMayLeaveAnEmptyFile) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        EXPECT_EQ(tree_->sync(make("file", "old")), 0);
        make("file.new", "new");
        EXPECT_EQ(tree_->rename(tree_->root(), "file.new", tree_->root(), "file", 0), 0);
        tree_->power_cut(seed);
        ASSERT_TRUE(exists("file")) << "seed " << seed;
        seen.insert(content("file"));
    }
    EXPECT_TRUE(seen.contains("old"));
    EXPECT_TRUE(seen.contains("new"));
    EXPECT_TRUE(seen.contains(""));
}

TEST_F(LossyTree, RenameAfterSyncIsOldOrNewAndWithDirectorySyncNew) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        const bool sync_directory = seed % 2 == 1;
        start();
        EXPECT_EQ(tree_->sync(make("file", "old")), 0);
        EXPECT_EQ(tree_->sync(make("file.new", "new")), 0);
        EXPECT_EQ(tree_->rename(tree_->root(), "file.new", tree_->root(), "file", 0), 0);
        if (sync_directory) {
            EXPECT_EQ(tree_->sync(tree_->root()), 0);
        }
        tree_->power_cut(seed);
        if (sync_directory) {
            ASSERT_EQ(content("file"), "new") << "seed " << seed;
            ASSERT_FALSE(exists("file.new"));
        } else {
            seen.insert(content("file"));
        }
    }
    EXPECT_EQ(seen, (std::set<std::string>{"old", "new"}));
}

TEST_F(LossyTree, UnlinkedFileMayComeBackWithItsContent) {
    int came_back = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        EXPECT_EQ(tree_->sync(make("file", "content")), 0);
        EXPECT_EQ(tree_->remove(tree_->root(), "file", false), 0);
        EXPECT_FALSE(exists("file"));
        tree_->power_cut(seed);
        if (exists("file")) {
            ++came_back;
            ASSERT_EQ(content("file"), "content") << "seed " << seed;
        }
    }
    EXPECT_GT(came_back, 20);
    EXPECT_LT(came_back, static_cast<int>(kSeeds));
}

// Metadata is ordered: a later change never survives without the earlier ones.
TEST_F(LossyTree, NamesSurviveInOrder) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        make("1", "");
        make("2", "");
        make("3", "");
        tree_->power_cut(seed);
        ASSERT_TRUE(exists("1") || !exists("2")) << "seed " << seed;
        ASSERT_TRUE(exists("2") || !exists("3")) << "seed " << seed;
    }
}

TEST_F(LossyTree, SyncOfAFileMakesItsNewDirectoryStable) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        NodePtr directory;
        NodePtr file;
        EXPECT_EQ(tree_->make_directory(tree_->root(), "d", 0700, directory), 0);
        EXPECT_EQ(tree_->make_file(directory, "f", S_IFREG | 0600, 0, file), 0);
        put(file, "text");
        EXPECT_EQ(tree_->sync(file), 0);
        tree_->power_cut(seed);
        ASSERT_EQ(content("d/f"), "text") << "seed " << seed;
    }
}

TEST_F(LossyTree, TruncatedContentIsOldOrNew) {
    std::set<std::string> seen;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        start();
        const NodePtr file = make("file", "0123456789");
        EXPECT_EQ(tree_->sync(file), 0);
        EXPECT_EQ(tree_->truncate(file, 0), 0);
        tree_->power_cut(seed);
        seen.insert(content("file"));
    }
    EXPECT_TRUE(seen.contains(""));
    EXPECT_TRUE(seen.contains("0123456789"));
    for (const std::string& text : seen) {
        EXPECT_TRUE(text.empty() || text == "0123456789" || text == std::string(10, '\0')) << text;
    }
}

TEST_F(LossyTree, RefusesAsAFileSystemDoesAndNothingWorksAfterTheCut) {
    start();
    NodePtr directory;
    EXPECT_EQ(tree_->make_directory(tree_->root(), "d", 0700, directory), 0);
    NodePtr inner;
    EXPECT_EQ(tree_->make_file(directory, "f", S_IFREG | 0600, 0, inner), 0);
    EXPECT_EQ(tree_->remove(tree_->root(), "d", true), ENOTEMPTY);
    EXPECT_EQ(tree_->remove(tree_->root(), "d", false), EISDIR);
    EXPECT_EQ(tree_->remove(directory, "f", true), ENOTDIR);
    EXPECT_EQ(tree_->remove(tree_->root(), "none", false), ENOENT);
    tree_->power_cut(1);
    NodePtr after;
    EXPECT_EQ(tree_->make_file(tree_->root(), "late", S_IFREG | 0600, 0, after), EIO);
    EXPECT_EQ(tree_->write(inner, "x", 1, 0, false), -EIO);
    EXPECT_EQ(tree_->sync(inner), EIO);
    EXPECT_TRUE(fs::is_empty(base_ / "trash"));
}

}  // namespace
}  // namespace gemel::lossyfs
