// Tags: the engine's names for disk operations: what kind, and which slot of that kind. Every operation
// completes exactly once and its slot waits for it, so an index is enough.
#pragma once

#include <cstdint>

namespace gemel::replication {

enum class TagKind : std::uint8_t {
    attach_superblock,
    attach_intent_log,
    attach_bitmap,
    superblock_write,
    intent_write,
    bitmap_write,
    flush,
    front,       // data of a front-end request
    peer,        // data of a peer's request
    peer_hash,   // hash of a peer's compare
    chunk_hash,  // resync source
    chunk_read,
    chunk_restore,  // what was read, written back
    peer_fetch,     // data the peer reads from here
};

constexpr std::uint64_t make_tag(TagKind kind, std::uint64_t index) {
    return static_cast<std::uint64_t>(kind) << 56 | index;
}
constexpr TagKind tag_kind(std::uint64_t tag) {
    return static_cast<TagKind>(tag >> 56);
}
constexpr std::uint32_t tag_index(std::uint64_t tag) {
    return static_cast<std::uint32_t>(tag & 0xffffffffU);
}

}  // namespace gemel::replication
