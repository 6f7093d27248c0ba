#include "core/formats/inspect.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include <fmt/format.h>

#include "core/formats/bitmap.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/superblock.hpp"

namespace gemel::formats {
namespace {

using Page = std::array<std::byte, kPageBytes>;

const char* state_word(ReplicaState state) {
    switch (state) {
        case ReplicaState::diskless: return "Diskless";
        case ReplicaState::failed: return "Failed";
        case ReplicaState::inconsistent: return "Inconsistent";
        case ReplicaState::outdated: return "Outdated";
        case ReplicaState::consistent: return "Consistent";
        case ReplicaState::up_to_date: return "UpToDate";
    }
    return "unknown";
}

const char* yes_no(bool value) {
    return value ? "yes" : "no";
}

template <typename Id>
std::string id_or_none(const Id& id) {
    return id.is_nil() ? "none" : id.to_string();
}

std::string describe_slot(const char* name, std::uint64_t offset, const Page& page) {
    const auto decoded = decode_superblock(page, offset);
    if (decoded) return fmt::format("superblock {}: sequence {}\n", name, decoded->sequence);
    return fmt::format("superblock {}: {}\n", name, decoded.error().message);
}

std::string describe_superblock(const Superblock& s) {
    std::string text;
    const auto line = [&](const char* label, const std::string& value) {
        text += fmt::format("  {:<17}{}\n", label, value);
    };
    line("cluster", s.cluster.to_string());
    line("volume", s.volume.to_string());
    line("replica", s.replica.to_string());
    line("size", fmt::format("{} bytes", s.size_bytes));
    line("state", state_word(s.state));
    if (s.generation.is_blank()) {
        line("generation", "none (blank: can only be filled from another replica)");
    } else {
        line("generation", fmt::format("{} {}, parent {}", s.generation.counter, s.generation.id.to_string(),
                                       id_or_none(s.generation.parent)));
    }
    for (const auto& ancestor : s.ancestors) line("ancestor", ancestor.to_string());
    line("other replica", id_or_none(s.peer));
    line("ack set", fmt::format("this {}, other {}, join pending {}", yes_no(s.in_ack_set),
                                yes_no(s.peer_in_ack_set), yes_no(s.join_pending)));
    line("epochs", fmt::format("granted {}, refused up to {}", s.granted_epoch, s.refused_epoch));
    line("tracking", s.tracked_peer.is_nil()
                         ? "none: the whole device counts as different"
                         : fmt::format("relative to {} since {}", s.tracked_peer.to_string(),
                                       id_or_none(s.tracked_since)));
    line("complete in boot", s.complete_in.is_nil() ? "none" : s.complete_in.to_string());
    line("closed", s.primary ? "no: it was Primary and did not close" : "yes");
    return text;
}

std::string describe_log(const ReadMetadataBytes& read, const Superblock& s, const Layout& layout) {
    std::vector<std::byte> ring(kIntentLogSlots * kPageBytes);
    if (!read(kIntentLogOffset, ring)) return "intent log: cannot be read: every block counts as different\n";
    const IntentLogContents log = decode_intent_log(ring, s.replica, layout.extents);
    if (!log.known) return "intent log: unknown (damaged): every block counts as different\n";
    std::string text = fmt::format("intent log: transaction {}, {} active extents of 4 MiB\n",
                                   log.newest.sequence, log.newest.extents.size());
    auto extents = log.newest.extents;
    std::ranges::sort(extents);
    for (std::size_t i = 0; i < extents.size();) {
        std::size_t end = i + 1;
        while (end < extents.size() && extents[end] == extents[end - 1] + 1) ++end;
        text += fmt::format("  {}..{} MiB\n", std::uint64_t{extents[i]} * 4,
                            (std::uint64_t{extents[end - 1]} + 1) * 4);
        i = end;
    }
    return text;
}

std::string describe_bitmap(const ReadMetadataBytes& read, const Superblock& s, const Layout& layout) {
    std::uint64_t dirty = 0;
    std::uint64_t unreadable = 0;
    std::array<std::uint64_t, kWordsPerPage> words{};
    Page page{};
    for (std::uint64_t i = 0; i < layout.bitmap_pages; ++i) {
        if (!read(Layout::bitmap_offset(i), page)) page.fill(std::byte{1});
        unreadable += decode_bitmap_page(page, i, s.replica, words).unreadable_sectors;
        const std::uint64_t blocks = std::min(kBlocksPerPage, layout.blocks - i * kBlocksPerPage);
        for (std::uint64_t w = 0; w * 64 < blocks; ++w) {
            const std::uint64_t rest = blocks - w * 64;
            const std::uint64_t mask = rest >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << rest) - 1;
            dirty += static_cast<std::uint64_t>(std::popcount(words[w] & mask));
        }
    }
    std::string text = fmt::format("bitmap: {} pages, {} of {} blocks of 4 KiB differ\n", layout.bitmap_pages,
                                   dirty, layout.blocks);
    if (unreadable > 0)
        text +=
            fmt::format("  {} sectors of it are unreadable; their blocks count as different\n", unreadable);
    return text;
}

}  // namespace

std::string inspect(const ReadMetadataBytes& read, std::uint64_t backing_bytes) {
    Page a{};
    Page b{};
    if (!read(kSuperblockA, a)) a.fill(std::byte{1});
    if (!read(kSuperblockB, b)) b.fill(std::byte{1});
    std::string text = fmt::format("disk format {}\n", kDiskVersion);
    text += describe_slot("A", kSuperblockA, a);
    text += describe_slot("B", kSuperblockB, b);
    const auto chosen = choose_superblock(a, b);
    if (!chosen) return text + chosen.error().message + "\n";
    const Superblock& s = chosen->superblock;
    const Layout layout = Layout::for_size(s.size_bytes);
    if (!chosen->newest)
        text += "the newest superblock is unreadable: freshness is unknown, it can only be a resync target\n";
    text += fmt::format("in use: sequence {}\n", s.sequence) + describe_superblock(s);
    text += describe_log(read, s, layout) + describe_bitmap(read, s, layout);
    text += fmt::format("data: {} bytes, plain raw, at offset {}\n", s.size_bytes, layout.data_offset);
    if (backing_bytes != 0 && backing_bytes < layout.backing_bytes()) {
        text += fmt::format("the backing has {} bytes, {} are needed: it was cut short\n", backing_bytes,
                            layout.backing_bytes());
    }
    return text;
}

}  // namespace gemel::formats
