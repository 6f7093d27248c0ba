// The initial metadata of a replica. Two ways to begin: a *blank* replica (generation counter 0,
// Inconsistent: it can only be a resync target, G7) and a *first generation* (both replicas are known to read
// as zeroes, or there is only one): UpToDate at generation 1, nothing dirty relative to `peer`. Pure: hands
// out pages; the caller writes them all, in order, makes them stable, and only then tells anybody that the
// replica exists. The superblocks come last, so that a format that was cut short is not a replica.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "base/ids.hpp"
#include "core/formats/superblock.hpp"
#include "core/formats/volume_record.hpp"

namespace gemel::formats {

struct FormatRequest {
    ClusterId cluster;
    VolumeId volume;
    ReplicaId replica;
    std::uint64_t size_bytes = 0;
    Generation generation;  // blank, or the record's first generation
    ReplicaId peer;         // first generation: the other replica; nil: none
};

using WritePage = std::function<void(std::uint64_t offset, std::span<const std::byte> page)>;

void format_replica(const FormatRequest& request, const WritePage& write);

}  // namespace gemel::formats
