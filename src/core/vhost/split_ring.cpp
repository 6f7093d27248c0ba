// The split ring: a table of descriptors, a ring of heads made available, a ring of heads given back.
#include <vector>

#include "core/vhost/ring.hpp"
#include "core/vhost/ring_layout.hpp"

namespace gemel::vhost {

namespace {

class SplitRing final : public Ring {
  public:
    SplitRing(const RingSetup& setup, const GuestMemory& memory, const DirtyLog& log)
        : Ring(setup, memory, log) {
        batch_.reserve(setup.size);
    }

    bool remap() override {
        const std::uint64_t size = setup_.size;
        auto* table = memory_.at_user_address(setup_.descriptors, size * sizeof(Descriptor)).memory;
        auto* available = memory_.at_user_address(setup_.available, 6 + size * 2).memory;
        auto* used = memory_.at_user_address(setup_.used, 6 + size * sizeof(UsedElement)).memory;
        if (table == nullptr || available == nullptr || used == nullptr) return false;
        if (!aligned(table, 16) || !aligned(available, 2) || !aligned(used, 4)) return false;
        table_ = table;
        available_ = available;
        used_ = used;
        return true;
    }

    void put(const Chain& chain, std::uint32_t written) override {
        const std::size_t slot = used_index_ % setup_.size;
        const std::size_t offset = 4 + sizeof(UsedElement) * slot;
        const UsedElement element{chain.id, written};
        if (SplitRecord* record = record_of(chain.id)) {
            record->next = records_->last_batch_head;
            records_edge();
            records_->last_batch_head = chain.id;
        }
        std::memcpy(used_ + offset, &element, sizeof element);
        mark_used(offset, sizeof element);
        ++used_index_;
        batch_.push_back(chain.id);
    }

    bool publish() override {
        if (batch_.empty()) return false;
        const std::uint16_t before = published_;
        records_edge();
        store_release(used_ + 2, used_index_);
        published_ = used_index_;
        mark_used(2, 2);
        records_edge();
        for (const std::uint16_t head : batch_) {
            if (SplitRecord* record = record_of(head)) record->in_flight = 0;
            let_go(head);
        }
        records_edge();
        if (records_ != nullptr) records_->used_index = used_index_;
        batch_.clear();
        // the index above must be visible before the guest's wish is read
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (!setup_.event_index) return (load_acquire(available_) & kNoInterrupt) == 0;
        const std::uint16_t event = load_acquire(available_ + 4 + 2 * std::size_t{setup_.size});
        return passed(event, published_, before);
    }

    bool want_kicks(bool wanted) override {
        if (!setup_.event_index) {
            store_release(used_, wanted ? 0 : kNoNotify);
            mark_used(0, 2);
        } else if (wanted) {
            const std::uint64_t offset = 4 + sizeof(UsedElement) * std::uint64_t{setup_.size};
            store_release(used_ + offset, next_available_);
            mark_used(offset, 2);
        }
        if (!wanted) return false;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return load_acquire(available_ + 2) != next_available_;
    }

    std::uint32_t base() const override { return next_available_; }

  private:
    bool begin() override {
        if ((setup_.size & (setup_.size - 1)) != 0) return false;
        next_available_ = static_cast<std::uint16_t>(setup_.base);
        used_index_ = published_ = load_acquire(used_ + 2);
        if (!setup_.in_flight.empty() && !recover()) return false;
        seen_available_ = next_available_;
        return true;
    }

    Taken take_new(Chain& chain) override {
        if (seen_available_ == next_available_) {
            seen_available_ = load_acquire(available_ + 2);
            const auto waiting = static_cast<std::uint16_t>(seen_available_ - next_available_);
            if (waiting == 0) return Taken::nothing;
            if (waiting > setup_.size) return breaks("more entries are available than the ring has");
        }
        const std::size_t slot = next_available_ % setup_.size;
        const auto head = copy_out<std::uint16_t>(available_ + 4 + 2 * slot);
        if (head >= setup_.size) return breaks("an available entry names no descriptor");
        if (is_held(head)) return breaks("an entry is available again that was not given back");
        if (SplitRecord* record = record_of(head)) {
            record->counter = counter_++;
            records_edge();
            record->in_flight = 1;
            records_edge();
        }
        ++next_available_;
        hold(head);
        return read_chain(chain, head);
    }

    Taken take_again(Chain& chain, const Again& one) override { return read_chain(chain, one.id); }
    bool all_published() const override { return batch_.empty(); }

    SplitRecord* record_of(std::uint16_t head) {
        if (records_ == nullptr) return nullptr;
        return reinterpret_cast<SplitRecord*>(setup_.in_flight.data() + sizeof(SplitRecords)) + head;
    }

    // What a former process left: a batch whose publication it had not noted, and entries taken and not given
    // back.
    bool recover() {
        records_ = reinterpret_cast<SplitRecords*>(setup_.in_flight.data());
        if (records_->version == 0) {
            records_->size = setup_.size;
            records_->used_index = used_index_;
            records_edge();
            records_->version = kRecordsVersion;
            return true;
        }
        if (records_->version != kRecordsVersion || records_->size != setup_.size) return false;
        const auto unnoted = static_cast<std::uint16_t>(used_index_ - records_->used_index);
        if (unnoted > setup_.size) return false;
        auto head = copy_of(records_->last_batch_head);
        for (std::uint16_t i = 0; i < unnoted; ++i) {
            if (head >= setup_.size) return false;
            record_of(head)->in_flight = 0;
            head = copy_of(record_of(head)->next);
        }
        records_edge();
        records_->used_index = used_index_;
        for (std::uint16_t i = 0; i < setup_.size; ++i) {
            const SplitRecord one = copy_of(*record_of(i));
            if (one.in_flight != 0) hold_again({one.counter, i, i, 1});
        }
        next_available_ = static_cast<std::uint16_t>(used_index_ + in_flight());
        return true;
    }

    Taken read_chain(Chain& chain, std::uint16_t head) {
        chain.id = chain.record = head;
        std::uint16_t index = head;
        for (std::uint32_t seen = 0;; ++seen) {
            if (seen == setup_.size) return breaks("a chain of descriptors forms a loop");
            const auto found = copy_out<Descriptor>(table_ + std::size_t{index} * sizeof(Descriptor));
            if ((found.flags & kIndirect) != 0) {
                if ((found.flags & kNext) != 0) return breaks("an indirect descriptor has a next one");
                return append_table(chain, found.address, found.length, true) ? Taken::chain : Taken::broken;
            }
            if (!append(chain, found.address, found.length, (found.flags & kWrite) != 0))
                return Taken::broken;
            if ((found.flags & kNext) == 0) return Taken::chain;
            if (found.next >= setup_.size) return breaks("a descriptor's next one is not in the table");
            index = found.next;
        }
    }

    std::byte* table_ = nullptr;
    std::byte* available_ = nullptr;
    std::byte* used_ = nullptr;
    SplitRecords* records_ = nullptr;
    std::uint16_t next_available_ = 0;  // the next one to be taken
    std::uint16_t seen_available_ = 0;  // up to here entries are known to be there
    std::uint16_t used_index_ = 0;      // the next one to be put
    std::uint16_t published_ = 0;
    std::vector<std::uint16_t> batch_;  // put and not published
};

}  // namespace

std::unique_ptr<Ring> Ring::make_split(const RingSetup& setup, const GuestMemory& memory,
                                       const DirtyLog& log) {
    return std::make_unique<SplitRing>(setup, memory, log);
}

}  // namespace gemel::vhost
