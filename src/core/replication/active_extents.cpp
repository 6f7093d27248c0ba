#include "core/replication/active_extents.hpp"

#include <algorithm>
#include <bit>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

using formats::kBlocksPerExtent;

ActiveExtents::ActiveExtents(const formats::Layout& layout, const ReplicaId& replica, std::uint32_t capacity,
                             DirtyBitmap& bitmap, std::uint32_t group)
    : layout_(layout),
      replica_(replica),
      bitmap_(bitmap),
      group_(group),
      slots_(std::min<std::uint64_t>({capacity, formats::kMaxIntentExtents, layout.extents})),
      slot_of_(layout.extents, kAbsent) {
    scratch_.reserve(slots_.size());
}

bool ActiveExtents::evictable(const Slot& slot, RoundId round) const {
    if (!slot.taken || slot.users > 0) return false;
    if (mutant("bitmap_after_extent_reuse")) return slot.settles_with <= round;
    return settled(slot, round) &&
           bitmap_.is_stable(DirtyBitmap::page_of(slot.extent * kBlocksPerExtent), slot.bits);
}

std::uint64_t ActiveExtents::absent_in(std::uint64_t first, std::uint64_t last) const {
    return static_cast<std::uint64_t>(std::count(slot_of_.begin() + static_cast<std::ptrdiff_t>(first),
                                                 slot_of_.begin() + static_cast<std::ptrdiff_t>(last) + 1,
                                                 kAbsent));
}

bool ActiveExtents::room_for(std::uint64_t offset, std::uint64_t length, RoundId settled_round) const {
    const std::uint64_t first = offset / kExtentBytes;
    const std::uint64_t last = (offset + length - 1) / kExtentBytes;
    const std::uint64_t missing = absent_in(first, last);
    std::uint64_t room = slots_.size() - used_;
    if (room >= missing) return true;
    for (const Slot& slot : slots_) {
        if (slot.extent >= first && slot.extent <= last) continue;
        if (evictable(slot, settled_round) && ++room >= missing) return true;
    }
    return false;
}

void ActiveExtents::drop(Slot& slot) {
    slot_of_[slot.extent] = kAbsent;
    slot = Slot{};
    --used_;
    changed_ = true;
}

// A free slot, or that of the evictable extent used least recently outside [first, last]; none: nullptr.
ActiveExtents::Slot* ActiveExtents::find_slot(RoundId settled_round, std::uint64_t first,
                                              std::uint64_t last) {
    Slot* victim = nullptr;
    for (Slot& slot : slots_) {
        if (!slot.taken) return &slot;
        if (slot.extent >= first && slot.extent <= last) continue;
        if (evictable(slot, settled_round) && (victim == nullptr || slot.used_at < victim->used_at))
            victim = &slot;
    }
    if (victim != nullptr) drop(*victim);
    return victim;
}

ActiveExtents::Slot& ActiveExtents::put(std::uint64_t extent, Slot& slot) {
    slot_of_[extent] = static_cast<std::uint16_t>(&slot - slots_.data());
    slot.taken = true;
    slot.extent = static_cast<std::uint32_t>(extent);
    slot.logged_by = stable_ + (writing_ ? 2 : 1);
    ++used_;
    changed_ = true;
    return slot;
}

bool ActiveExtents::just_written(std::uint64_t extent) const {
    if (slot_of_[extent] == kAbsent) return false;
    const std::uint64_t used_at = slots_[slot_of_[extent]].used_at;
    return used_at > 0 && uses_ - used_at <= kJustWritten;
}

// A sequential writer shall find its next extents named before it comes to them.
bool ActiveExtents::runs_out(std::uint64_t first, std::uint64_t last) const {
    const std::uint64_t soon = last + group_ * kGroupsAhead / 2;
    return first > 0 && just_written(first - 1) && soon < layout_.extents && slot_of_[soon] == kAbsent;
}

// As far as there is room without waiting for anything.
void ActiveExtents::name_neighbours(std::uint64_t first, std::uint64_t last, RoundId settled_round) {
    if (group_ <= 1) return;
    const std::uint64_t begin = first / group_ * group_;
    const bool sequential = first > 0 && just_written(first - 1);
    const std::uint64_t groups = last / group_ + (sequential ? kGroupsAhead : 1);
    const std::uint64_t end = std::min<std::uint64_t>(groups * group_, layout_.extents);
    for (std::uint64_t extent = begin; extent < end; ++extent) {
        if (slot_of_[extent] != kAbsent) continue;
        Slot* slot = find_slot(settled_round, begin, end - 1);
        if (slot == nullptr) return;
        put(extent, *slot);
    }
}

bool ActiveExtents::enter(std::uint64_t offset, std::uint64_t length, RoundId settled_round) {
    const std::uint64_t first = offset / kExtentBytes;
    const std::uint64_t last = (offset + length - 1) / kExtentBytes;
    INVARIANT(last - first < slots_.size() || slots_.size() == layout_.extents,
              "one piece fits into the log");
    const bool cold = absent_in(first, last) > 0;
    if (cold && !room_for(offset, length, settled_round)) return false;
    entered_transaction_ = 0;
    bool first_use = false;
    for (std::uint64_t extent = first; extent <= last; ++extent) {
        if (slot_of_[extent] == kAbsent) {
            Slot* found = find_slot(settled_round, first, last);
            INVARIANT(found != nullptr, "room_for promised a slot");
            put(extent, *found);
        }
        Slot& slot = slots_[slot_of_[extent]];
        if (slot.touched_any && settled(slot, settled_round)) {
            slot.touched.fill(0);
            slot.touched_any = false;
        }
        ++slot.users;
        first_use = first_use || slot.used_at == 0;
        slot.used_at = ++uses_;
        if (slot.logged_by > stable_) entered_transaction_ = std::max(entered_transaction_, slot.logged_by);
    }
    if (cold || (first_use && runs_out(first, last))) name_neighbours(first, last, settled_round);
    return true;
}

void ActiveExtents::leave(std::uint64_t offset, std::uint64_t length, RoundId settles_with, bool stable) {
    for (std::uint64_t e = offset / kExtentBytes; e <= (offset + length - 1) / kExtentBytes; ++e) {
        INVARIANT(slot_of_[e] != kAbsent, "an extent in use stays in the log");
        Slot& slot = slots_[slot_of_[e]];
        INVARIANT(slot.users > 0, "every leave has its enter");
        --slot.users;
        slot.settles_with = std::max(slot.settles_with, settles_with);
        if (!stable) slot.unstable_until = slot.settles_with;
    }
}

void ActiveExtents::touch_in(Slot& slot, std::uint64_t first_block, std::uint64_t last_block) {
    for (std::uint64_t word = first_block / 64; word <= last_block / 64; ++word) {
        std::uint64_t mask = ~std::uint64_t{0};
        if (word == first_block / 64) mask &= ~std::uint64_t{0} << (first_block % 64);
        if (word == last_block / 64) mask &= ~std::uint64_t{0} >> (63 - last_block % 64);
        slot.touched[word] |= mask;
    }
    slot.touched_any = true;
}

void ActiveExtents::touch(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t first = offset / kBlockBytes;
    const std::uint64_t last = (offset + length - 1) / kBlockBytes;
    for (std::uint64_t e = first / kBlocksPerExtent; e <= last / kBlocksPerExtent; ++e) {
        const std::uint64_t base = e * kBlocksPerExtent;
        const std::uint64_t from = first > base ? first - base : 0;
        const std::uint64_t to = std::min(last - base, kBlocksPerExtent - 1);
        touch_in(slots_[slot_of_[e]], from, to);
    }
}

void ActiveExtents::note_dirty(std::uint64_t offset, std::uint64_t length) {
    for (std::uint64_t e = offset / kExtentBytes; e <= (offset + length - 1) / kExtentBytes; ++e) {
        if (slot_of_[e] == kAbsent) continue;
        slots_[slot_of_[e]].bits = bitmap_.version(DirtyBitmap::page_of(e * kBlocksPerExtent));
    }
}

void ActiveExtents::spill(Slot& slot) {
    if (!slot.touched_any) return;
    const std::uint64_t base = slot.extent * kBlocksPerExtent;
    for (std::uint64_t word = 0; word < slot.touched.size(); ++word) {
        for (std::uint64_t bits = slot.touched[word]; bits != 0; bits &= bits - 1) {
            const std::uint64_t block = base + word * 64 + static_cast<std::uint64_t>(std::countr_zero(bits));
            bitmap_.set(block * kBlockBytes, kBlockBytes);
        }
    }
    slot.touched.fill(0);
    slot.touched_any = false;
    slot.bits = bitmap_.version(DirtyBitmap::page_of(base));
}

void ActiveExtents::spill_unsettled(RoundId settled_round) {
    for (Slot& slot : slots_) {
        if (slot.taken && !settled(slot, settled_round)) spill(slot);
    }
}

bool ActiveExtents::make_room(RoundId settled_round) {
    bool round_wanted = false;
    for (const Slot& slot : slots_) {
        if (!slot.taken || slot.users > 0) continue;
        if (!settled(slot, settled_round)) round_wanted = true;
        const std::uint64_t page = DirtyBitmap::page_of(slot.extent * kBlocksPerExtent);
        if (!bitmap_.is_stable(page, slot.bits)) bitmap_.want_stable(page);
    }
    return round_wanted;
}

void ActiveExtents::retire(RoundId settled_round) {
    for (Slot& slot : slots_) {
        if (slot.taken && evictable(slot, settled_round)) drop(slot);
    }
}

void ActiveExtents::forget_all() {
    for (Slot& slot : slots_) {
        if (!slot.taken) continue;
        INVARIANT(slot.users == 0, "a resync target has no writes of its own");
        drop(slot);
    }
}

void ActiveExtents::pump(Outputs& outputs) {
    if (writing_ || !changed_) return;
    scratch_.clear();
    for (const Slot& slot : slots_) {
        if (slot.taken) scratch_.push_back(slot.extent);
    }
    formats::encode_intent(stable_ + 1, scratch_, replica_, page_);
    writing_ = true;
    changed_ = false;
    outputs.emplace_back(WriteMetadata{make_tag(TagKind::intent_write, 0),
                                       formats::Layout::intent_offset(stable_ + 1), page_, true});
}

void ActiveExtents::written() {
    INVARIANT(writing_, "a transaction completes once");
    writing_ = false;
    ++stable_;
}

void ActiveExtents::load(const formats::IntentTransaction& newest) {
    stable_ = newest.sequence;
    std::uint32_t index = 0;
    for (const std::uint32_t extent : newest.extents) {
        const std::uint64_t begin = std::uint64_t{extent} * kExtentBytes;
        bitmap_.set(begin, std::min<std::uint64_t>(kExtentBytes, layout_.size_bytes - begin));
        INVARIANT(index < slots_.size(), "attach makes room for every extent it found");
        Slot& slot = slots_[index];
        slot_of_[extent] = static_cast<std::uint16_t>(index++);
        slot.taken = true;
        slot.extent = extent;
        slot.logged_by = newest.sequence;
        slot.settles_with = slot.unstable_until =
            1;  // the dead process's writes may still be in the device's cache
        ++used_;
    }
    for (Slot& slot : slots_) {
        if (slot.taken) slot.bits = bitmap_.version(DirtyBitmap::page_of(slot.extent * kBlocksPerExtent));
    }
}

std::uint64_t ActiveExtents::unsettled_bytes(RoundId settled_round) const {
    std::uint64_t blocks = 0;
    for (const Slot& slot : slots_) {
        if (!slot.taken || !slot.touched_any || settled(slot, settled_round)) continue;
        for (const std::uint64_t word : slot.touched)
            blocks += static_cast<std::uint64_t>(std::popcount(word));
    }
    return blocks * kBlockBytes;
}

bool ActiveExtents::ended_unstable(RoundId settled_round) const {
    return std::ranges::any_of(
        slots_, [&](const Slot& slot) { return slot.taken && slot.unstable_until > settled_round; });
}

bool ActiveExtents::all_settled(RoundId settled_round) const {
    return std::ranges::all_of(slots_,
                               [&](const Slot& slot) { return !slot.taken || settled(slot, settled_round); });
}

}  // namespace gemel::replication
