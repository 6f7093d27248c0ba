// The packed ring: one ring of descriptors, in which both sides write; who owns an entry is told by two bits
// that change their meaning with each turn (the wrap counters).
#include <vector>

#include "core/vhost/ring.hpp"
#include "core/vhost/ring_layout.hpp"

namespace gemel::vhost {

namespace {

// A place in the ring: base() and GET_VRING_BASE hold it as index and, in bit 15, wrap.
struct Place {
    std::uint16_t index = 0;
    bool wrap = true;

    void advance(std::uint32_t by, std::uint16_t size) {
        const std::uint32_t sum = index + by;
        index = static_cast<std::uint16_t>(sum >= size ? sum - size : sum);
        if (sum >= size) wrap = !wrap;
    }
    std::uint16_t bits() const { return static_cast<std::uint16_t>(index | (wrap ? 0x8000U : 0U)); }
    bool operator==(const Place&) const = default;
};

Place place_of(std::uint32_t bits) {
    return {static_cast<std::uint16_t>(bits & 0x7fffU), (bits & 0x8000U) != 0};
}

class PackedRing final : public Ring {
  public:
    PackedRing(const RingSetup& setup, const GuestMemory& memory, const DirtyLog& log)
        : Ring(setup, memory, log) {
        batch_.reserve(setup.size);
    }

    bool remap() override {
        const std::uint64_t bytes = std::uint64_t{setup_.size} * sizeof(PackedDescriptor);
        const auto ring = memory_.at_user_address(setup_.descriptors, bytes);
        const auto driver = memory_.at_user_address(setup_.available, 4);
        const auto device = memory_.at_user_address(setup_.used, 4);
        if (ring.memory == nullptr || driver.memory == nullptr || device.memory == nullptr) return false;
        if (!aligned(ring.memory, 16) || !aligned(driver.memory, 4) || !aligned(device.memory, 4))
            return false;
        ring_ = ring;
        driver_ = driver.memory;
        device_ = device;
        return true;
    }

    void put(const Chain& chain, std::uint32_t written) override {
        if (records_ != nullptr) {
            record(chain.last).next = records_->free_head;
            records_edge();
            records_->free_head = chain.record;
        }
        batch_.push_back({used_, chain.id, chain.slots, chain.record, written});
        used_.advance(chain.slots, setup_.size);
    }

    // The first entry's flags are what shows the batch: they are written last.
    bool publish() override {
        if (batch_.empty()) return false;
        if (records_ != nullptr) {
            records_edge();
            records_->used_index = used_.index;
            records_->used_wrap = used_.wrap ? 1 : 0;
            records_edge();
        }
        for (std::size_t i = batch_.size(); i-- > 0;) give_back(batch_[i]);
        for (const Put& put : batch_) {
            if (records_ != nullptr) record(put.record).in_flight = 0;
            let_go(put.id);
            entries_in_flight_ -= put.slots;
        }
        settle_records();
        batch_.clear();
        const Place before = published_;
        published_ = used_;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return wants_to_be_told(before);
    }

    bool want_kicks(bool wanted) override {
        const std::uint16_t mode = wanted ? (setup_.event_index ? 2 : 0) : 1;
        if (wanted && setup_.event_index) store_release(device_.memory, available_.bits());
        store_release(device_.memory + 2, mode);
        mark(device_.guest_address, 4);
        if (!wanted) return false;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return is_available(available_);
    }

    std::uint32_t base() const override {
        return available_.bits() | static_cast<std::uint32_t>(used_.bits()) << 16;
    }

  private:
    struct Put {
        Place at;
        std::uint16_t id = 0;
        std::uint16_t slots = 1;
        std::uint16_t record = 0;
        std::uint32_t written = 0;
    };

    bool begin() override {
        // nothing is in flight where a ring is opened without records: both places are the same
        available_ = used_ = place_of(setup_.base);
        if (available_.index >= setup_.size) return false;
        if (!setup_.in_flight.empty() && !recover()) return false;
        published_ = used_;
        return true;
    }

    Taken take_new(Chain& chain) override {
        if (!is_available(available_)) return Taken::nothing;
        Place at = available_;
        for (chain.slots = 1;; ++chain.slots) {
            const auto found = copy_out<PackedDescriptor>(entry(at.index));
            chain.id = found.id;
            if (!note(chain, found)) return breaks("more entries are in flight than the ring has");
            if (!append_one(chain, found, chain.slots == 1)) return Taken::broken;
            at.advance(1, setup_.size);
            if ((found.flags & kNext) == 0) break;
            if (chain.slots == setup_.size) return breaks("a chain of descriptors has no end");
        }
        if (chain.id >= setup_.size) return breaks("a buffer's id is not below the ring's size");
        if (is_held(chain.id)) return breaks("a buffer is available again that was not given back");
        if (entries_in_flight_ + chain.slots > setup_.size) {
            return breaks("more entries are in flight than the ring has");
        }
        noted(chain);
        available_ = at;
        hold(chain.id);
        entries_in_flight_ += chain.slots;
        return Taken::chain;
    }

    // The guest's entries may have been overwritten since: the chain is in the records.
    Taken take_again(Chain& chain, const Again& one) override {
        chain.id = one.id;
        chain.slots = one.slots;
        chain.record = chain.last = one.record;
        for (std::uint16_t i = 0; i < one.slots; ++i) {
            const PackedRecord entry = copy_of(record(chain.last));
            const PackedDescriptor found{entry.address, entry.length, entry.id, entry.flags};
            if (!append_one(chain, found, i == 0)) return Taken::broken;
            if (i + 1 == one.slots) break;
            if (entry.next >= setup_.size) return breaks("an in-flight record names no entry");
            chain.last = entry.next;
        }
        return Taken::chain;
    }
    bool all_published() const override { return batch_.empty(); }

    std::byte* entry(std::uint16_t index) const {
        return ring_.memory + std::size_t{index} * sizeof(PackedDescriptor);
    }
    PackedRecord& record(std::uint16_t index) const {
        auto* all = setup_.in_flight.data() + sizeof(PackedRecords);
        return reinterpret_cast<PackedRecord*>(all)[index];
    }

    bool is_available(const Place& at) const {
        const std::uint16_t flags = load_acquire(entry(at.index) + 14);
        return ((flags & kPackedAvailable) != 0) == at.wrap && ((flags & kPackedUsed) != 0) != at.wrap;
    }

    // A packed ring's entries are marked where they are: what the front end gives as the used part's address
    // in the log is the device's event suppression, not the ring.
    void mark(std::uint64_t guest_address, std::uint64_t length) const {
        if (setup_.log_used) log_.mark(guest_address, length);
    }

    void give_back(const Put& put) {
        std::byte* at = entry(put.at.index);
        std::memcpy(at + 8, &put.written, sizeof put.written);
        std::memcpy(at + 12, &put.id, sizeof put.id);
        std::uint16_t flags = put.written > 0 ? kWrite : 0;
        if (put.at.wrap) flags |= kPackedAvailable | kPackedUsed;
        store_release(at + 14, flags);
        mark(ring_.guest_address + std::uint64_t{put.at.index} * sizeof(PackedDescriptor),
             sizeof(PackedDescriptor));
    }

    bool wants_to_be_told(const Place& before) const {
        const std::uint16_t mode = load_acquire(driver_ + 2) & 3;
        if (mode != 2 || !setup_.event_index) return mode != 1;
        const Place event = place_of(load_acquire(driver_));
        // as seen from `published_`: an event of the turn before lies one ring further back
        const auto index = static_cast<std::uint16_t>(
            event.wrap == published_.wrap ? event.index : event.index - setup_.size);
        const auto old = static_cast<std::uint16_t>(
            before.wrap == published_.wrap ? before.index : before.index - setup_.size);
        return passed(index, published_.index, old);
    }

    bool append_one(Chain& chain, const PackedDescriptor& found, bool first) {
        if ((found.flags & kIndirect) == 0) {
            return append(chain, found.address, found.length, (found.flags & kWrite) != 0);
        }
        if (!first || (found.flags & kNext) != 0) {
            breaks("an indirect descriptor in a chain");
            return false;
        }
        return append_table(chain, found.address, found.length, false);
    }

    // ---- in-flight records ----

    // One record for each entry; the chain's first one becomes valid by noted().
    bool note(Chain& chain, const PackedDescriptor& found) {
        if (records_ == nullptr) return true;
        const auto index = copy_of(records_->free_head);
        if (index >= setup_.size) return false;
        if (chain.slots == 1) {
            chain.record = index;
            record(index).counter = counter_++;
        }
        chain.last = index;
        PackedRecord& one = record(index);
        one.address = found.address;
        one.length = found.length;
        one.flags = found.flags;
        one.id = found.id;
        record(chain.record).last = index;
        record(chain.record).count = chain.slots;
        records_->free_head = one.next;
        return true;
    }
    void noted(const Chain& chain) {
        if (records_ == nullptr) return;
        record(chain.record).id = chain.id;
        records_edge();
        record(chain.record).in_flight = 1;
        records_edge();
        records_->old_free_head = records_->free_head;
        records_edge();
    }
    void settle_records() {
        if (records_ == nullptr) return;
        records_edge();
        records_->old_free_head = records_->free_head;
        records_->old_used_index = records_->used_index;
        records_->old_used_wrap = records_->used_wrap;
        records_edge();
    }

    bool recover() {
        records_ = reinterpret_cast<PackedRecords*>(setup_.in_flight.data());
        if (records_->version == 0) {
            for (std::uint16_t i = 0; i < setup_.size; ++i) {
                record(i).next = static_cast<std::uint16_t>(i + 1 < setup_.size ? i + 1 : setup_.size);
            }
            records_->size = setup_.size;
            records_->free_head = records_->old_free_head = 0;
            records_->used_index = records_->old_used_index = used_.index;
            records_->used_wrap = records_->old_used_wrap = used_.wrap ? 1 : 0;
            records_edge();
            records_->version = kRecordsVersion;
            return true;
        }
        const PackedRecords found = copy_of(*records_);
        if (found.version != kRecordsVersion || found.size != setup_.size) return false;
        if (found.old_used_index >= setup_.size || found.used_index >= setup_.size) return false;
        finish_batch(found);
        return collect();
    }

    // Had the former process shown its last batch? Then it is finished, otherwise it is undone.
    void finish_batch(const PackedRecords& found) {
        const Place old{found.old_used_index, found.old_used_wrap != 0};
        const Place now{found.used_index, found.used_wrap != 0};
        if (!(old == now) && !is_available(old)) {
            settle_records();
            return;
        }
        records_->free_head = found.old_free_head;
        records_->used_index = found.old_used_index;
        records_->used_wrap = found.old_used_wrap;
        records_edge();
    }

    bool collect() {
        const PackedRecords found = copy_of(*records_);
        if (found.used_index >= setup_.size) return false;
        std::vector<bool> is_free(setup_.size, false);
        std::uint16_t index = found.free_head;
        for (std::uint16_t i = 0; i < setup_.size && index < setup_.size; ++i) {
            if (is_free[index]) return false;
            is_free[index] = true;
            record(index).in_flight = 0;
            index = copy_of(record(index).next);
        }
        for (std::uint16_t i = 0; i < setup_.size; ++i) {
            const PackedRecord one = copy_of(record(i));
            if (is_free[i] || one.in_flight == 0) continue;
            if (one.count == 0 || one.id >= setup_.size) return false;
            entries_in_flight_ += one.count;
            if (entries_in_flight_ > setup_.size) return false;
            if (!hold_again({one.counter, i, one.id, one.count})) return false;
        }
        available_ = used_ = {found.used_index, found.used_wrap != 0};
        available_.advance(entries_in_flight_, setup_.size);
        return true;
    }

    GuestMemory::Found ring_;
    std::byte* driver_ = nullptr;
    GuestMemory::Found device_;
    PackedRecords* records_ = nullptr;
    Place available_;  // the next one to be taken
    Place used_;       // the next one to be given back
    Place published_;
    std::uint32_t entries_in_flight_ = 0;
    std::vector<Put> batch_;  // put and not published
};

}  // namespace

std::unique_ptr<Ring> Ring::make_packed(const RingSetup& setup, const GuestMemory& memory,
                                        const DirtyLog& log) {
    return std::make_unique<PackedRing>(setup, memory, log);
}

}  // namespace gemel::vhost
