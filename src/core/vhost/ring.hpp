// Ring: one virtqueue in the guest's memory, seen from the device. take() hands out what the guest made
// available, put() and publish() give it back in any order. With a region of in-flight records (shared with
// the front end, which outlives this process) a ring that is opened again hands out first what was taken and
// never given back, in the order in which it was taken: nothing is lost, nothing published is run twice.
//
// The guest is not trusted and writes the ring while we read it: everything is copied once, then checked.
// What no driver may do makes the ring broken(): nothing more is taken from it. Nothing allocates after
// creation but a chain's pieces growing to what the longest needed. One thread.
//
// Source: Virtual I/O Device (VIRTIO) 1.1, "Split Virtqueues", "Packed Virtqueues"; the vhost-user protocol's
// text, "Inflight I/O tracking".
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/vhost/guest_memory.hpp"

namespace gemel::vhost {

inline constexpr std::uint32_t kMaxQueueSize = 1024;  // entries; power of two for split rings
inline constexpr std::uint32_t kMaxPieces = 1024;  // descriptors of one chain, an indirect table's included

// One contiguous stretch of the guest's memory.
struct Piece {
    std::byte* memory = nullptr;
    std::uint64_t guest_address = 0;
    std::uint32_t length = 0;
    bool device_writes = false;
};

struct Chain {
    std::uint16_t id = 0;       // split: the head's index; packed: the buffer id
    std::uint16_t slots = 1;    // packed: ring entries it took
    std::uint16_t record = 0;   // its in-flight record, the first one
    std::uint16_t last = 0;     // packed: and the last one
    std::vector<Piece> pieces;  // those the device reads come first

    void clear() {
        id = record = last = 0;
        slots = 1;
        pieces.clear();
    }
};

enum class Taken : std::uint8_t { nothing, chain, broken };

struct RingSetup {
    std::uint16_t size = 0;         // entries
    std::uint32_t base = 0;         // where the front end says that the ring goes on (SET_VRING_BASE)
    std::uint64_t descriptors = 0;  // user addresses of the three parts
    std::uint64_t available = 0;    // packed: the driver's event suppression
    std::uint64_t used = 0;         // packed: the device's event suppression
    std::uint64_t used_log = 0;     // split: guest address at which writes to the used part are logged
    bool log_used = false;
    bool event_index = false;
    bool indirect = false;
    std::span<std::byte> in_flight;  // this queue's records; empty: not tracked
};

class Ring {
  public:
    virtual ~Ring() = default;
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // nullptr: a part lies outside the memory or is not aligned, the size is not possible, or the in-flight
    // records make no sense. `memory` and `log` stay where they are as long as the ring lives; what they hold
    // may change between calls, but the ring's own parts stay mapped.
    static std::unique_ptr<Ring> open(bool packed, const RingSetup& setup, const GuestMemory& memory,
                                      const DirtyLog& log);

    // All that was put is published before (a packed ring's records of a batch know no entries taken
    // meanwhile).
    Taken take(Chain& chain);
    // written: bytes put into the chain's writable pieces, from the first on
    virtual void put(const Chain& chain, std::uint32_t written) = 0;
    // Shows all that was put since the last time. true: the guest wants to be told.
    virtual bool publish() = 0;
    // Asks the guest to tell of new entries (true) or not to. true: some may have come before it could see
    // that.
    virtual bool want_kicks(bool wanted) = 0;
    // Finds its parts again after the memory has been mapped anew. false: they are not there any more; the
    // ring stays where it was, and what is in flight may still be put there while that is mapped.
    virtual bool remap() = 0;
    // for GET_VRING_BASE, once nothing is in flight or to be taken again
    virtual std::uint32_t base() const = 0;
    // on the fly, at the begin and end of a migration
    void log_used(bool on, std::uint64_t address) {
        setup_.log_used = on;
        setup_.used_log = address;
    }

    bool broken() const { return !problem_.empty(); }
    std::string_view problem() const { return problem_; }
    std::uint32_t in_flight() const { return in_flight_; }
    // take() will hand out something that a former process took
    bool has_again() const { return !broken() && again_next_ < again_.size(); }

  protected:
    // An entry that a former process took and never gave back. A copy: the records are the front end's too.
    struct Again {
        std::uint64_t counter = 0;
        std::uint16_t record = 0;
        std::uint16_t id = 0;
        std::uint16_t slots = 1;
    };

    Ring(const RingSetup& setup, const GuestMemory& memory, const DirtyLog& log)
        : setup_(setup), memory_(memory), log_(log), held_(setup.size, false) {}

    // false: an entry of that id is in flight already
    bool hold_again(const Again& one);
    void hold(std::uint16_t id) {
        held_[id] = true;
        ++in_flight_;
    }
    bool is_held(std::uint16_t id) const { return held_[id]; }
    void let_go(std::uint16_t id) {
        held_[id] = false;
        --in_flight_;
    }

    Taken breaks(std::string_view why) {
        problem_ = why;
        return Taken::broken;
    }
    // Appends [address, address + length), cut where regions end. false: broken
    bool append(Chain& chain, std::uint64_t address, std::uint32_t length, bool device_writes);
    // Appends what the table at that address describes: `chained` follows next, otherwise entries in a row.
    bool append_table(Chain& chain, std::uint64_t address, std::uint32_t length, bool chained);
    void mark_used(std::uint64_t offset, std::uint64_t length) const {
        if (setup_.log_used) log_.mark(setup_.used_log + offset, length);
    }

    RingSetup setup_;
    const GuestMemory& memory_;
    const DirtyLog& log_;
    std::uint64_t counter_ = 0;  // of the next entry that is taken, in its record

  private:
    static std::unique_ptr<Ring> make_split(const RingSetup& setup, const GuestMemory& memory,
                                            const DirtyLog& log);
    static std::unique_ptr<Ring> make_packed(const RingSetup& setup, const GuestMemory& memory,
                                             const DirtyLog& log);
    // After remap(): where the ring goes on, by its setup or its records. false: they make no sense
    virtual bool begin() = 0;
    virtual Taken take_new(Chain& chain) = 0;
    virtual Taken take_again(Chain& chain, const Again& one) = 0;
    virtual bool all_published() const = 0;

    std::uint32_t in_flight_ = 0;
    std::vector<bool> held_;    // by id: taken and not published
    std::vector<Again> again_;  // in the order of their counters
    std::size_t again_next_ = 0;
    std::string_view problem_;
};

// Bytes of one queue's in-flight records, a multiple of 64.
std::size_t in_flight_bytes(bool packed, std::uint16_t size);

// The guest asked to be told once `event` has been passed; the index went from before to after.
constexpr bool passed(std::uint16_t event, std::uint16_t after, std::uint16_t before) {
    return static_cast<std::uint16_t>(after - event - 1) < static_cast<std::uint16_t>(after - before);
}

}  // namespace gemel::vhost
