#include "core/replication/metadata_store.hpp"

#include <utility>

#include "base/invariant.hpp"
#include "core/formats/layout.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

void MetadataStore::pump(Outputs& outputs) {
    if (busy_ || is_stable()) return;
    busy_ = true;
    writing_ = wanted_;
    writing_version_ = version_;
    writing_.sequence = ++sequence_;
    formats::encode_superblock(writing_, page_);
    outputs.emplace_back(WriteMetadata{make_tag(TagKind::superblock_write, 0),
                                       formats::Layout::superblock_offset(sequence_), page_, true});
}

void MetadataStore::written() {
    INVARIANT(busy_, "a superblock write completes once");
    INVARIANT(writing_.generation.counter >= stable_.generation.counter, "a generation never goes back");
    INVARIANT(writing_.refused_epoch >= stable_.refused_epoch, "a refused epoch stays refused");
    busy_ = false;
    stable_ = writing_;
    stable_version_ = writing_version_;
}

}  // namespace gemel::replication
