#include "core/formats/format_replica.hpp"

#include <array>

#include "base/invariant.hpp"
#include "core/formats/bitmap.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"

namespace gemel::formats {

void format_replica(const FormatRequest& request, const WritePage& write) {
    const Layout layout = Layout::for_size(request.size_bytes);
    const bool blank = request.generation.is_blank();
    INVARIANT(!request.replica.is_nil() && !request.volume.is_nil(),
              "a replica has an identity from its first byte");
    std::array<std::byte, kPageBytes> page;
    for (std::uint64_t sequence = 1; sequence <= kIntentLogSlots; ++sequence) {
        encode_intent(sequence, {}, request.replica, page);
        write(Layout::intent_offset(sequence), page);
    }
    std::array<std::uint64_t, kWordsPerPage> words;
    words.fill(blank ? ~std::uint64_t{0} : 0);
    for (std::uint64_t i = 0; i < layout.bitmap_pages; ++i) {
        encode_bitmap_page(i, 1, words, request.replica, page);
        write(Layout::bitmap_offset(i), page);
    }
    Superblock superblock;
    superblock.cluster = request.cluster;
    superblock.volume = request.volume;
    superblock.replica = request.replica;
    superblock.size_bytes = request.size_bytes;
    superblock.generation = request.generation;
    superblock.peer = request.peer;
    superblock.state = blank ? ReplicaState::inconsistent : ReplicaState::up_to_date;
    superblock.in_ack_set = !blank;
    if (!blank && !request.peer.is_nil()) {
        superblock.peer_in_ack_set = true;
        superblock.tracked_peer = request.peer;
        superblock.tracked_since = request.generation.id;
    }
    for (superblock.sequence = 1; superblock.sequence <= 2; ++superblock.sequence) {
        encode_superblock(superblock, page);
        write(Layout::superblock_offset(superblock.sequence), page);
    }
}

}  // namespace gemel::formats
