#include "daemons/blockd/inspect.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include <fmt/format.h>

#include "core/formats/bitmap.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/records.hpp"
#include "core/formats/superblock.hpp"

namespace gemel::blockd {
namespace {

using Page = std::array<std::byte, formats::kPageBytes>;

bool read_at(std::ifstream& file, std::uint64_t offset, std::span<std::byte> out) {
    file.clear();
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
    return file.gcount() == static_cast<std::streamsize>(out.size());
}

const char* yes(bool value) {
    return value ? "yes" : "no";
}

std::string id_or_none(bool nil, const std::string& text) {
    return nil ? "none" : text;
}

std::string describe(const formats::Superblock& s) {
    std::string text;
    const auto line = [&](std::string_view name, const std::string& value) {
        text += fmt::format("    {:<18} {}\n", name, value);
    };
    line("cluster", s.cluster.to_string());
    line("volume", s.volume.to_string());
    line("replica", s.replica.to_string());
    line("size", fmt::format("{} bytes", s.size_bytes));
    line("state", std::string(to_string(s.state)));
    line("generation",
         s.generation.is_blank()
             ? "blank (never held data)"
             : fmt::format("{} (number {}, parent {})", s.generation.id.to_string(), s.generation.counter,
                           id_or_none(s.generation.parent.is_nil(), s.generation.parent.to_string())));
    for (const auto& ancestor : s.ancestors) line("ancestor", ancestor.to_string());
    line("peer's replica", id_or_none(s.peer.is_nil(), s.peer.to_string()));
    line("in ack set", fmt::format("{}, peer {}", yes(s.in_ack_set), yes(s.peer_in_ack_set)));
    line("join pending", yes(s.join_pending));
    line("epochs", fmt::format("granted {}, refused up to {}", s.granted_epoch, s.refused_epoch));
    line("primary", s.primary ? "yes (serving, or not closed)" : "no");
    line("tracks", s.tracked_peer.is_nil() ? "nobody: the whole device counts as different"
                                           : fmt::format("{} since generation {}", s.tracked_peer.to_string(),
                                                         s.tracked_since.to_string()));
    return text;
}

std::string describe_intents(std::ifstream& file, const formats::Layout& layout, const ReplicaId& replica) {
    std::vector<std::byte> ring(formats::kIntentLogSlots * formats::kPageBytes);
    if (!read_at(file, formats::kIntentLogOffset, ring)) return "intent log: unreadable\n";
    const auto log = formats::decode_intent_log(ring, replica, layout.extents);
    if (!log.known) return "intent log: unknown: every block counts as different\n";
    std::string text = fmt::format("intent log: transaction {}, {} active extents of 4 MiB\n",
                                   log.newest.sequence, log.newest.extents.size());
    auto extents = log.newest.extents;
    std::ranges::sort(extents);
    for (std::size_t i = 0; i < extents.size();) {
        std::size_t last = i;
        while (last + 1 < extents.size() && extents[last + 1] == extents[last] + 1) ++last;
        text += fmt::format("    {} .. {}\n", extents[i] * formats::kExtentBytes,
                            (extents[last] + std::uint64_t{1}) * formats::kExtentBytes);
        i = last + 1;
    }
    return text;
}

std::string describe_bitmap(std::ifstream& file, const formats::Layout& layout, const ReplicaId& replica) {
    std::uint64_t dirty = 0;
    std::uint64_t unreadable = 0;
    std::array<std::uint64_t, formats::kWordsPerPage> words{};
    for (std::uint64_t page = 0; page < layout.bitmap_pages; ++page) {
        Page bytes{};
        const bool read = read_at(file, formats::Layout::bitmap_offset(page), bytes);
        words.fill(0);
        const auto contents = formats::decode_bitmap_page(bytes, page, replica, words);
        unreadable += read ? contents.unreadable_sectors : formats::kSectorsPerPage;
        const std::uint64_t first = page * formats::kBlocksPerPage;
        const std::uint64_t blocks = std::min(formats::kBlocksPerPage, layout.blocks - first);
        for (std::uint64_t block = 0; block < blocks; ++block) dirty += words[block / 64] >> (block % 64) & 1;
    }
    return fmt::format("bitmap: {} pages, {} of {} blocks different ({} bytes), {} unreadable sectors\n",
                       layout.bitmap_pages, dirty, layout.blocks, dirty * formats::kBlockBytes, unreadable);
}

}  // namespace

Result<std::string> inspect(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return fail(ErrorCode::not_found, "cannot open " + path + ": name a replica's file or device");
    Page slots[2] = {};
    const std::uint64_t offsets[2] = {formats::kSuperblockA, formats::kSuperblockB};
    std::string text = path + "\n";
    for (int i = 0; i < 2; ++i) {
        const bool read = read_at(file, offsets[i], slots[i]);
        const auto slot = formats::decode_superblock(slots[i], offsets[i]);
        text += fmt::format("superblock slot {}: ", i == 0 ? 'A' : 'B');
        text += !read  ? "beyond the end of the file\n"
                : slot ? fmt::format("sequence {}\n", slot->sequence)
                       : slot.error().message + "\n";
        if (slot) text += describe(*slot);
    }
    const auto chosen = formats::choose_superblock(slots[0], slots[1]);
    if (!chosen) {
        return fail(chosen.error().code,
                    fmt::format("{}no superblock can be used: {}", text, chosen.error().message));
    }
    const auto& superblock = chosen->superblock;
    text += fmt::format("used: sequence {}{}\n", superblock.sequence,
                        chosen->newest ? "" : " (a newer one may have been lost: freshness unknown)");
    const auto layout = formats::Layout::for_size(superblock.size_bytes);
    text += describe_intents(file, layout, superblock.replica);
    text += describe_bitmap(file, layout, superblock.replica);
    text += fmt::format("data: {} bytes from offset {}, plain raw:\n    qemu-nbd -f raw --offset={} {}\n",
                        superblock.size_bytes, layout.data_offset, layout.data_offset, path);
    return text;
}

}  // namespace gemel::blockd
