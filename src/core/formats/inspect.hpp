// inspect: all metadata of a replica as text for a human. Pure: bytes in, text out; reads nothing it is not
// given and never fails: what is unreadable is said to be so. Used by gemel-blockd --inspect.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace gemel::formats {

// Fills `into` from the metadata area; false: could not be read.
using ReadMetadataBytes = std::function<bool(std::uint64_t offset, std::span<std::byte> into)>;

// Ends with a newline. `backing_bytes`: size of the file or device, 0 when unknown.
std::string inspect(const ReadMetadataBytes& read, std::uint64_t backing_bytes);

}  // namespace gemel::formats
