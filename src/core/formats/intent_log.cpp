#include "core/formats/intent_log.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "base/bytes.hpp"
#include "base/invariant.hpp"

namespace gemel::formats {
namespace {

static_assert(32 + kMaxIntentExtents * 4 == kPagePayload);

std::optional<IntentTransaction> decode_transaction(const DecodedPage& page, std::uint64_t slot,
                                                    std::uint64_t extents) {
    if (page.health != PageHealth::whole || page.sequence % kIntentLogSlots != slot) return std::nullopt;
    const PagePayload payload = page.payload();
    ByteReader reader{std::span<const std::byte>(payload)};
    IntentTransaction transaction;
    transaction.sequence = page.sequence;
    const std::uint32_t count = reader.u32();
    reader.skip(28);
    if (count > kMaxIntentExtents) return std::nullopt;
    transaction.extents.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t extent = reader.u32();
        if (extent >= extents) return std::nullopt;
        transaction.extents.push_back(extent);
    }
    return transaction;
}

}  // namespace

void encode_intent(std::uint64_t sequence, std::span<const std::uint32_t> extents, const ReplicaId& replica,
                   PageBytes out) {
    INVARIANT(extents.size() <= kMaxIntentExtents, "a transaction carries the whole active set");
    PagePayload payload{};
    ByteWriter writer{std::span<std::byte>(payload)};
    writer.u32(static_cast<std::uint32_t>(extents.size()));
    writer.zeroes(28);
    for (const std::uint32_t extent : extents) writer.u32(extent);
    encode_page({PageKind::intent, Layout::intent_offset(sequence), sequence, replica},
                std::span<const std::byte, kPagePayload>(payload), out);
}

IntentLogContents decode_intent_log(std::span<const std::byte> ring, const ReplicaId& replica,
                                    std::uint64_t extents) {
    INVARIANT(ring.size() == kIntentLogSlots * kPageBytes, "the whole ring is read at once");
    std::array<PageHealth, kIntentLogSlots> health{};
    IntentLogContents contents;
    for (std::uint64_t slot = 0; slot < kIntentLogSlots; ++slot) {
        const ConstPageBytes bytes{ring.subspan(slot * kPageBytes, kPageBytes)};
        const std::uint64_t offset = kIntentLogOffset + slot * kPageBytes;
        const DecodedPage page = decode_page(bytes, PageKind::intent, offset, replica);
        health[slot] = page.health;
        auto transaction = decode_transaction(page, slot, extents);
        if (!transaction) {
            if (page.health == PageHealth::whole) health[slot] = PageHealth::damaged;
            continue;
        }
        if (transaction->sequence > contents.newest.sequence) contents.newest = std::move(*transaction);
    }
    const PageHealth next = health[(contents.newest.sequence + 1) % kIntentLogSlots];
    contents.known = contents.newest.sequence > 0 && (next == PageHealth::whole || next == PageHealth::torn);
    if (!contents.known) contents.newest.extents.clear();
    return contents;
}

}  // namespace gemel::formats
