#include "core/formats/layout.hpp"

#include "base/invariant.hpp"

namespace gemel::formats {

Layout Layout::for_size(std::uint64_t size_bytes) {
    INVARIANT(valid_size(size_bytes), "a volume's size is checked before a layout is made for it");
    Layout layout;
    layout.size_bytes = size_bytes;
    layout.blocks = size_bytes / kBlockBytes;
    layout.extents = (size_bytes + kExtentBytes - 1) / kExtentBytes;
    layout.bitmap_pages = (layout.blocks + kBlocksPerPage - 1) / kBlocksPerPage;
    layout.metadata_bytes = kBitmapOffset + layout.bitmap_pages * kPageBytes;
    layout.data_offset = kSmallestDataOffset;
    while (layout.data_offset < layout.metadata_bytes) layout.data_offset *= 2;
    return layout;
}

}  // namespace gemel::formats
