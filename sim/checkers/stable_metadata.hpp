// StableMetadata: what one disk's stable metadata says, decoded from the image as an attach would; it trusts
// no engine. Decoded again only when the stable metadata changed. Not in it: judgements.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/formats/superblock.hpp"
#include "sim/world/image.hpp"

namespace gemel::sim {

class StableMetadata {
  public:
    explicit StableMetadata(std::uint64_t data_bytes);

    // `version` names the state of the image's metadata; the same version is decoded once
    void read(const Image& image, std::uint64_t version);

    // nothing: unreadable, or the newest slot is; what it says is unknown then
    const std::optional<formats::Superblock>& superblock() const { return superblock_; }
    // the newest slot that can be read, which is good for identity
    const std::optional<formats::Superblock>& identity() const { return identity_; }
    // How this side tracks its differences from the replica `other`: everything (the whole device), or by
    // block.
    bool everything(const std::optional<formats::Superblock>& other) const;
    bool names(std::uint64_t block) const;
    bool readable() const { return superblock_ && log_known_; }
    std::uint64_t words() const { return bits_.size(); }
    // 64 blocks at once: dirty bits and active extents
    std::uint64_t word(std::uint64_t index) const { return bits_[index] | in_extents_[index]; }

  private:
    void read_superblock(const Image& image);

    std::uint64_t data_bytes_;
    std::optional<std::uint64_t> version_;
    std::optional<formats::Superblock> superblock_;
    std::optional<formats::Superblock> identity_;
    bool log_known_ = false;
    std::vector<std::uint64_t> bits_;
    std::vector<std::uint64_t> in_extents_;
    std::vector<std::byte> ring_;
};

}  // namespace gemel::sim
