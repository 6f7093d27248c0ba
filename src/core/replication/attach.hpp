// Attach: read what this replica knew. Nothing is served or answered before it is done.
//
//   idle -> superblocks -> intent_log -> bitmap (page by page, bounded) -> spill -> done
//                 |              |
//                 +-> refused    +-- unknown log: every bit is set and stable (spill) before anything else
//
// A superblock that cannot be read, or of another cluster, volume, size or replica, is refused (M7, G6): this
// engine then stays unattached and says why.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/formats/intent_log.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class Attach {
  public:
    explicit Attach(Core& core) : core_(core) {}
    void pump();
    void metadata_read(const MetadataRead& read);
    // metadata may be written: all of it was read
    bool spilling() const { return state_ == State::spill; }
    bool done() const { return state_ == State::done; }
    bool refused() const { return state_ == State::refused; }
    const std::string& problem() const { return problem_; }
    bool writer_crashed() const { return writer_crashed_; }  // active extents were found

  private:
    enum class State : std::uint8_t { idle, superblocks, intent_log, bitmap, spill, done, refused };
    static constexpr std::uint64_t kPagesPerRead = 64;
    void enter(State next) { state_ = next; }
    void refuse(std::string why);
    void superblocks_read();
    bool identity_is_right();
    void intent_log_read(std::span<const std::byte> ring);
    void read_more_bitmap();
    void bitmap_read(std::span<const std::byte> bytes);
    void spill();
    void finish();

    Core& core_;
    State state_ = State::idle;
    std::string problem_;
    std::array<std::array<std::byte, 4096>, 2> slots_{};
    std::uint32_t slots_read_ = 0;
    std::uint64_t next_page_ = 0;
    formats::IntentLogContents log_;
    bool writer_crashed_ = false;
    bool written_again_ = false;
    bool log_again_ = false;
};

}  // namespace gemel::replication
