#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/vhost/block_command.hpp"

namespace gemel::vhost {
namespace {

struct Head {
    std::uint32_t type;
    std::uint32_t priority;
    std::uint64_t sector;
};

// A chain over memory of its own: pieces are cut as asked, guest addresses count from 1 MiB.
class Chains {
  public:
    static constexpr std::uint64_t kBase = 1U << 20;

    void readable(std::vector<std::byte> bytes) { add(std::move(bytes), false); }
    void writable(std::size_t bytes) { add(std::vector<std::byte>(bytes, std::byte{0xee}), true); }
    void header(std::uint32_t type, std::uint64_t sector) { readable(encode(Head{type, 0, sector})); }
    void range(std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags) {
        struct {
            std::uint64_t sector;
            std::uint32_t sectors, flags;
        } one{sector, sectors, flags};
        readable(encode(one));
    }
    template <typename T>
    static std::vector<std::byte> encode(const T& value) {
        const auto bytes = std::as_bytes(std::span(&value, 1));
        return {bytes.begin(), bytes.end()};
    }
    BlockCommand parse(const Disk& disk = {1U << 20, 512, 4096, 1, false}) {
        chain_.clear();
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            chain_.pieces.push_back({parts_[i].bytes.data(), kBase + 4096 * i,
                                     static_cast<std::uint32_t>(parts_[i].bytes.size()), parts_[i].writable});
        }
        return vhost::parse(chain_, disk);
    }
    std::vector<std::byte>& part(std::size_t i) { return parts_[i].bytes; }

  private:
    struct Part {
        std::vector<std::byte> bytes;
        bool writable;
    };
    void add(std::vector<std::byte> bytes, bool writable) { parts_.push_back({std::move(bytes), writable}); }
    std::vector<Part> parts_;
    Chain chain_;
};

std::uint64_t bytes_of(const BlockCommand& command) {
    std::uint64_t sum = 0;
    for (const Piece& piece : command.data) sum += piece.length;
    return sum;
}

TEST(BlockCommand, a_read) {
    Chains chains;
    chains.header(0, 8);
    chains.writable(1024);
    chains.writable(1);
    const BlockCommand command = chains.parse();
    ASSERT_FALSE(command.broken);
    EXPECT_EQ(command.refusal, BlockStatus::ok);
    EXPECT_EQ(command.operation, Operation::read);
    EXPECT_EQ(command.offset_bytes, 4096U);
    EXPECT_EQ(command.length_bytes, 1024U);
    EXPECT_EQ(bytes_of(command), 1024U);
    put_status(command.status, BlockStatus::io_error, {});
    EXPECT_EQ(chains.part(2)[0], std::byte{1});
}

// How the bytes lie in the pieces is the driver's choice.
TEST(BlockCommand, a_write_cut_anywhere) {
    std::vector<std::byte> all = Chains::encode(Head{1, 0, 1});
    for (int i = 0; i < 512; ++i) all.push_back(static_cast<std::byte>(i));
    for (std::size_t cut = 1; cut < all.size(); ++cut) {
        Chains chains;
        const auto middle = all.begin() + static_cast<std::ptrdiff_t>(cut);
        chains.readable({all.begin(), middle});
        chains.readable({middle, all.end()});
        chains.writable(1);
        const BlockCommand command = chains.parse();
        ASSERT_EQ(command.refusal, BlockStatus::ok);
        ASSERT_EQ(command.operation, Operation::write);
        ASSERT_EQ(command.length_bytes, 512U);
        std::vector<std::byte> data(512);
        get_data(command.data, 0, data);
        ASSERT_TRUE(std::ranges::equal(data, std::span(all).subspan(16)));
        get_data(command.data, 100, std::span(data).first(200));
        ASSERT_EQ(data[0], all[116]);
        ASSERT_EQ(data[199], all[315]);
    }
}

TEST(BlockCommand, a_status_that_shares_its_piece_with_the_data) {
    Chains chains;
    chains.header(0, 0);
    chains.writable(513);
    std::vector<std::byte> bits(64);
    const DirtyLog log(bits);
    const BlockCommand command = chains.parse();
    EXPECT_EQ(command.length_bytes, 512U);
    put_data(command.data, 0, std::vector<std::byte>(512, std::byte{7}), log);
    put_status(command.status, BlockStatus::ok, log);
    EXPECT_EQ(chains.part(1)[511], std::byte{7});
    EXPECT_EQ(chains.part(1)[512], std::byte{0});
    const std::uint64_t page = (Chains::kBase + 4096) / 4096;
    EXPECT_EQ(bits[page / 8], std::byte(1U << page % 8));
}

TEST(BlockCommand, no_request_at_all) {
    Chains without_status;
    without_status.header(0, 0);
    EXPECT_TRUE(without_status.parse().broken);
    Chains short_header;
    short_header.readable(std::vector<std::byte>(15));
    short_header.writable(1);
    EXPECT_TRUE(short_header.parse().broken);
    Chains nothing;
    EXPECT_TRUE(nothing.parse().broken);
}

struct Case {
    const char* what;
    std::uint32_t type;
    std::uint64_t sector;
    std::size_t readable;
    std::size_t writable;  // without the status
    BlockStatus refusal;
    bool read_only = false;
    std::uint32_t block = 512;
};

TEST(BlockCommand, what_is_done_and_what_is_refused) {
    const std::uint64_t end = (1U << 20) / 512;
    for (const Case& c : std::vector<Case>{
             {"the last sector", 0, end - 1, 0, 512, BlockStatus::ok},
             {"behind the end", 0, end, 0, 512, BlockStatus::io_error},
             {"over the end", 1, end - 1, 1024, 0, BlockStatus::io_error},
             {"far behind the end", 1, ~std::uint64_t{0}, 512, 0, BlockStatus::io_error},
             {"half a sector", 0, 0, 0, 256, BlockStatus::io_error},
             {"nothing", 1, 0, 0, 0, BlockStatus::io_error},
             {"a read that also gives", 0, 0, 512, 512, BlockStatus::io_error},
             {"a write that also takes", 1, 0, 512, 512, BlockStatus::io_error},
             {"a write of what is read-only", 1, 0, 512, 0, BlockStatus::io_error, true},
             {"a read of what is read-only", 0, 0, 0, 512, BlockStatus::ok, true},
             {"blocks of 4096", 1, 8, 4096, 0, BlockStatus::ok, false, 4096},
             {"half a block of 4096", 1, 8, 2048, 0, BlockStatus::io_error, false, 4096},
             {"between blocks of 4096", 1, 4, 4096, 0, BlockStatus::io_error, false, 4096},
             {"a flush", 4, 0, 0, 0, BlockStatus::ok},
             {"a SCSI command", 2, 0, 0, 0, BlockStatus::unsupported},
             {"an unknown type", 77, 0, 0, 0, BlockStatus::unsupported},
             {"a range cut short", 11, 0, 15, 0, BlockStatus::io_error},
             {"two ranges", 13, 0, 32, 0, BlockStatus::io_error},
         }) {
        SCOPED_TRACE(c.what);
        Chains chains;
        chains.header(c.type, c.sector);
        if (c.readable > 0) chains.readable(std::vector<std::byte>(c.readable));
        chains.writable(c.writable + 1);
        const BlockCommand command = chains.parse({1U << 20, c.block, 4096, 1, c.read_only});
        EXPECT_FALSE(command.broken);
        EXPECT_EQ(command.refusal, c.refusal);
    }
}

TEST(BlockCommand, discards_and_zeroes) {
    struct {
        std::uint32_t type;
        std::uint64_t sector;
        std::uint32_t sectors;
        std::uint32_t flags;
        BlockStatus refusal;
        bool unmap;
    } const cases[] = {
        {11, 8, 16, 0, BlockStatus::ok, true},           {13, 8, 16, 0, BlockStatus::ok, false},
        {13, 8, 16, 1, BlockStatus::ok, true},           {11, 8, 16, 1, BlockStatus::unsupported, false},
        {13, 8, 16, 2, BlockStatus::unsupported, false}, {13, 2040, 16, 0, BlockStatus::io_error, false},
        {13, 0, 0, 0, BlockStatus::io_error, false},     {13, 0, 1U << 31, 0, BlockStatus::io_error, false},
    };
    for (const auto& c : cases) {
        Chains chains;
        chains.header(c.type, 0);
        chains.range(c.sector, c.sectors, c.flags);
        chains.writable(1);
        const BlockCommand command = chains.parse();
        EXPECT_EQ(command.refusal, c.refusal) << c.type << ' ' << c.sector << ' ' << c.flags;
        if (command.refusal != BlockStatus::ok) continue;
        EXPECT_EQ(command.offset_bytes, c.sector * 512);
        EXPECT_EQ(command.length_bytes, c.sectors * 512);
        EXPECT_EQ(command.unmap, c.unmap);
    }
}

TEST(BlockCommand, the_serial) {
    for (const std::size_t room : {20U, 8U}) {
        Chains chains;
        chains.header(8, 0);
        chains.writable(room);
        chains.writable(1);
        const BlockCommand command = chains.parse();
        EXPECT_EQ(command.operation, Operation::get_id);
        EXPECT_EQ(put_serial(command, "gemel-0123456789abcdefgh", {}), room);
        const auto& text = chains.part(1);
        EXPECT_EQ(std::string(reinterpret_cast<const char*>(text.data()), room),
                  std::string("gemel-0123456789abcd").substr(0, room));
    }
}

TEST(BlockCommand, the_configuration) {
    const ConfigSpace bytes = config_space({1U << 30, 512, 4096, 4, false}, true);
    const auto at = [&bytes](std::size_t offset, std::size_t width) {
        std::uint64_t value = 0;
        std::memcpy(&value, bytes.data() + offset, width);
        return value;
    };
    EXPECT_EQ(at(0, 8), (1U << 30) / 512U);
    EXPECT_EQ(at(12, 4), kMaxDataPieces);
    EXPECT_EQ(at(20, 4), 512U);
    EXPECT_EQ(at(24, 1), 3U) << "2^3 logical blocks in a physical one";
    EXPECT_EQ(at(kConfigWritebackAt, 1), 1U);
    EXPECT_EQ(at(34, 2), 4U);
    EXPECT_EQ(at(36, 4), kMaxRangeBytes / 512);
    EXPECT_EQ(at(48, 4), kMaxRangeBytes / 512);
    EXPECT_EQ(config_space({1U << 30, 512, 4096, 4, false}, false)[kConfigWritebackAt], std::byte{0});
}

}  // namespace
}  // namespace gemel::vhost
