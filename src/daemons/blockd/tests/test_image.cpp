#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "adapters/disk/image_file.hpp"
#include "core/formats/layout.hpp"
#include "daemons/blockd/image.hpp"
#include "daemons/blockd/inspect.hpp"

namespace gemel::blockd {
namespace {

struct Image : ::testing::Test {
    std::string path = ::testing::TempDir() + "gemel-image-" + std::to_string(::getpid()) + ".img";
    formats::FormatRequest request;

    void SetUp() override {
        request.cluster = ClusterId::from_random(1, 1);
        request.volume = VolumeId::from_random(2, 2);
        request.replica = ReplicaId::from_random(3, 3);
        request.size_bytes = 64 << 20;
        request.generation = {GenerationId::from_random(4, 4), {}, 1};
    }
    void TearDown() override {
        ::unlink(path.c_str());
        ::unlink((path + ".moved").c_str());
    }
};

TEST_F(Image, IsMadeOnceAndMayBeMadeAgain) {
    ASSERT_TRUE(make_replica(path, request));
    ASSERT_TRUE(make_replica(path, request)) << "the same again: nothing to do";
    const auto found = read_superblock(path);
    ASSERT_TRUE(found.has_value());
    EXPECT_TRUE(found->newest);
    EXPECT_EQ(found->superblock.replica, request.replica);
    EXPECT_EQ(found->superblock.state, ReplicaState::up_to_date);
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(info.st_size),
              formats::Layout::for_size(request.size_bytes).backing_bytes());
}

TEST_F(Image, ACrashInTheMiddleLeavesNothingInTheWay) {
    std::ofstream(path + ".new") << "half a format";
    EXPECT_TRUE(make_replica(path, request));
    EXPECT_NE(::access((path + ".new").c_str(), F_OK), 0);
}

TEST_F(Image, WhatIsThereIsNeverOverwritten) {
    std::ofstream(path) << "somebody's data";
    const auto refused = make_replica(path, request);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
    ::unlink(path.c_str());
    ASSERT_TRUE(make_replica(path, request));
    request.replica = ReplicaId::from_random(9, 9);
    EXPECT_FALSE(make_replica(path, request)) << "another replica lives there";
    request.size_bytes = 1000;
    EXPECT_EQ(make_replica(path, request).error().code, ErrorCode::invalid_argument);
}

TEST_F(Image, RemoveAndRenameOnlyTouchTheNamedVolume) {
    ASSERT_TRUE(make_replica(path, request));
    EXPECT_FALSE(remove_replica(path, VolumeId::from_random(7, 7)));
    auto held = disk::open_exclusively(path);
    ASSERT_TRUE(held.has_value() && held->has_value());
    EXPECT_FALSE(remove_replica(path, request.volume)) << "in use";
    disk::close_file(**held);
    ASSERT_TRUE(rename_replica(path, path + ".moved", request.volume));
    ASSERT_TRUE(rename_replica(path, path + ".moved", request.volume)) << "the same again: done before";
    ASSERT_TRUE(make_replica(path, request));
    EXPECT_FALSE(rename_replica(path, path + ".moved", request.volume)) << "the name is taken";
    EXPECT_TRUE(remove_replica(path, request.volume));
    EXPECT_TRUE(remove_replica(path, request.volume)) << "the same again: done before";
}

TEST_F(Image, InspectTellsEverything) {
    ASSERT_TRUE(make_replica(path, request));
    const auto text = inspect(path);
    ASSERT_TRUE(text.has_value()) << text.error().message;
    for (const char* expected :
         {"UpToDate", "slot A", "slot B", "intent log", "bitmap", "qemu-nbd -f raw --offset="}) {
        EXPECT_NE(text->find(expected), std::string::npos) << expected << "\n" << *text;
    }
    EXPECT_NE(text->find(request.replica.to_string()), std::string::npos);
    EXPECT_FALSE(inspect(path + ".none"));
    std::ofstream(path, std::ios::trunc) << "x";
    EXPECT_FALSE(inspect(path));
}

}  // namespace
}  // namespace gemel::blockd
