// Disk images as they come in: what a file is, and copying it to an NBD URI with qemu-img. Refuses what would
// not be a faithful copy (a backing file, encryption, damage) or is not a disk image at all (archives, other
// formats).
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/error.hpp"

namespace gemel::cli {

struct Image {
    std::string path;
    std::string format;              // raw or qcow2
    std::int64_t virtual_bytes = 0;  // what the guest would see
};

// format: "raw", "qcow2", or empty to look. invalid_argument where it is not usable, not_found,
// failed_precondition where it is in use.
Result<Image> inspect_image(const std::string& path, const std::string& format);

// Copies the whole image to an exported, all-zero volume, flushed at the end. on_percent gets 0 to 100;
// keep_going false stops it (failed_precondition).
Status copy_image(const Image& image, const std::string& nbd_uri,
                  const std::function<void(double)>& on_percent, const std::function<bool()>& keep_going);

}  // namespace gemel::cli
