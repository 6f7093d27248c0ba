// Opening, making and measuring what a replica lives on: a raw file or a block device. Everything here blocks
// for a moment (open, ioctl, fallocate) and belongs to attach, not to the data path.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.hpp"

namespace gemel::disk {

struct OpenFile {
    int direct_fd = -1;    // O_DIRECT (or, where that does not exist, an ordinary one)
    int buffered_fd = -1;  // same file through the page cache, for requests below the device's alignment
    std::uint64_t size_bytes = 0;
    std::uint32_t alignment = 4096;  // of offsets, lengths and memory for direct I/O: 512 or 4096
    bool is_block_device = false;
    bool direct = false;
};

// Opens and locks. An empty result: another process holds it (a former blockd's outlived I/O, QEMU, a mount):
// try again later. Errors are for good.
Result<std::optional<OpenFile>> open_exclusively(const std::string& path);
void close_file(OpenFile& file);

// A new file of that size, with its space allocated where the file system can; fails if the path exists.
// Stable (file and directory entry) when it returns. A block device is only checked: it must exist and be
// large enough.
Status make_backing(const std::string& path, std::uint64_t size_bytes, bool thin);

}  // namespace gemel::disk
