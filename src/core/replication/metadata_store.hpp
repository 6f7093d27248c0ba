// MetadataStore: the superblock in memory (wanted) and on disk (stable). Whoever needs an edge "stable
// before" edits wanted() and goes on only when stable() shows it; several edits share one write. Two slots
// are written in turn, one write at a time, each stable.
#pragma once

#include <array>
#include <cstdint>

#include "core/formats/superblock.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class MetadataStore {
  public:
    const formats::Superblock& wanted() const { return wanted_; }
    const formats::Superblock& stable() const { return stable_; }
    bool is_stable() const { return stable_version_ == version_; }
    std::uint64_t version() const { return version_; }  // raised by every change of wanted()

    template <typename Change>
    void edit(Change&& change) {
        formats::Superblock next = wanted_;
        change(next);
        if (next == wanted_) return;
        wanted_ = std::move(next);
        ++version_;
    }

    void load(const formats::Superblock& found) {
        wanted_ = stable_ = found;
        sequence_ = found.sequence;
    }
    void distrust() { ++version_; }  // what was loaded may not be stable: it is written again
    void pump(Outputs& outputs);
    void written();
    // An error: nothing more is written until try_again(), and that into the same slot, which may be torn
    // now, by a sequence of its own: halves of two attempts are no whole page.
    void not_written() {
        failed_ = true;
        ++sequence_;
    }
    void try_again() {
        if (failed_) failed_ = busy_ = false;
    }

  private:
    formats::Superblock wanted_;
    formats::Superblock stable_;
    formats::Superblock writing_;
    std::uint64_t sequence_ = 0;
    std::uint64_t version_ = 1;
    std::uint64_t stable_version_ = 1;
    std::uint64_t writing_version_ = 0;
    bool busy_ = false;
    bool failed_ = false;
    alignas(4096) std::array<std::byte, 4096> page_{};
};

}  // namespace gemel::replication
