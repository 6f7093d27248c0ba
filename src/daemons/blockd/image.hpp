// A replica's backing seen from outside the data path: making one, recognising one, setting one aside.
// Everything here blocks and runs on control threads. A backing is made under another name and renamed into
// place when its metadata is stable, so a crash leaves either no replica or a whole one, and every call may
// be repeated (C9).
#pragma once

#include <string>

#include "base/error.hpp"
#include "core/formats/format_replica.hpp"
#include "core/formats/superblock.hpp"

namespace gemel::blockd {

// The chosen superblock of a backing. not_found: no such file; corrupt: there is one, but no readable
// superblock.
Result<formats::ChosenSuperblock> read_superblock(const std::string& path);

// A new backing with fresh metadata. Already there with the same replica id: nothing to do. Anything else
// there (another replica, another image, data): refused, nothing changed.
Status make_replica(const std::string& path, const formats::FormatRequest& request);

// Both refuse what is not a replica of that volume and what is in use.
Status remove_replica(const std::string& path, const VolumeId& volume);
Status rename_replica(const std::string& path, const std::string& to, const VolumeId& volume);

}  // namespace gemel::blockd
