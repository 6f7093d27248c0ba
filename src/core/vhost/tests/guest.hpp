// Guest: memory and the driver's side of one virtqueue in it, split or packed, for tests. It keeps to the
// rules; tests that do not write into the memory themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/vhost/ring.hpp"
#include "core/vhost/ring_layout.hpp"

namespace gemel::vhost {

struct Buffer {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    bool device_writes = false;
};

class Guest {
  public:
    static constexpr std::uint64_t kBase = 0x100000;  // guest address of the memory's first byte
    static constexpr std::uint64_t kUser = 0x7f0000000000;
    static constexpr std::uint64_t kBytes = 8U << 20;
    static constexpr std::uint64_t kTable = 0;
    static constexpr std::uint64_t kAvailable = 0x8000;
    static constexpr std::uint64_t kUsed = 0xa000;
    static constexpr std::uint64_t kIndirectTables = 0x10000;  // 64 descriptors for each entry
    static constexpr std::uint64_t kData = 0x80000;

    // elsewhere: kBytes of memory that others see too; otherwise it has its own
    Guest(bool packed, std::uint16_t size, bool event_index, std::byte* elsewhere = nullptr)
        : packed_(packed),
          size_(size),
          event_index_(event_index),
          elsewhere_(elsewhere),
          bytes_(elsewhere == nullptr ? kBytes / 64 : 0) {
        region_ = {kBase, kBytes, kUser, 0};
        memory.add(region_, raw());
        for (std::uint16_t i = 0; i < size; ++i) free_.push_back(static_cast<std::uint16_t>(size - 1 - i));
        counts_.resize(size, 0);
        heads_.resize(size);
    }

    std::byte* raw() {
        return elsewhere_ != nullptr ? elsewhere_ : reinterpret_cast<std::byte*>(bytes_.data());
    }
    template <typename T>
    T& at(std::uint64_t offset) {
        return *reinterpret_cast<T*>(raw() + offset);
    }

    RingSetup setup(bool indirect = true) const {
        RingSetup s;
        s.size = size_;
        s.base = packed_ ? 0x80008000U : 0;
        s.descriptors = kUser + kTable;
        s.available = kUser + kAvailable;
        s.used = kUser + kUsed;
        s.event_index = event_index_;
        s.indirect = indirect;
        return s;
    }
    std::unique_ptr<Ring> open(const RingSetup& s) const { return Ring::open(packed_, s, memory, log); }
    std::unique_ptr<Ring> open() const { return open(setup()); }

    std::size_t room() const { return free_.size(); }

    // nothing: no room
    std::optional<std::uint16_t> add(const std::vector<Buffer>& buffers, bool indirect = false) {
        const std::size_t needed = indirect ? 1 : buffers.size();
        if (packed_ ? packed_room() < needed || free_.empty() : free_.size() < needed) return std::nullopt;
        return packed_ ? add_packed(buffers, indirect) : add_split(buffers, indirect);
    }

    // ids and bytes written, in the order in which the device gave them back
    std::vector<std::pair<std::uint16_t, std::uint32_t>> reap() {
        std::vector<std::pair<std::uint16_t, std::uint32_t>> found;
        if (packed_) {
            for (;;) {
                auto& one = at<PackedDescriptor>(kTable + 16 * std::uint64_t{used_});
                const bool available = (one.flags & kPackedAvailable) != 0;
                if (available != used_wrap_ || ((one.flags & kPackedUsed) != 0) != used_wrap_) return found;
                found.emplace_back(one.id, one.length);
                step(used_, used_wrap_, counts_[one.id]);
                in_use_ -= counts_[one.id];
                free_.push_back(one.id);
            }
        }
        while (used_ != at<std::uint16_t>(kUsed + 2)) {
            const auto& one = at<UsedElement>(kUsed + 4 + 8 * std::uint64_t(used_ % size_));
            const auto id = static_cast<std::uint16_t>(one.id);
            found.emplace_back(id, one.written);
            for (const std::uint16_t entry : heads_[id]) free_.push_back(entry);
            heads_[id].clear();
            ++used_;
        }
        return found;
    }

    // "Tell me when the next one is given back", as a driver does before it sleeps.
    void ask_to_be_told() {
        if (!event_index_) return;
        if (packed_) {
            at<std::uint16_t>(kAvailable) = static_cast<std::uint16_t>(used_ | (used_wrap_ ? 0x8000U : 0U));
            at<std::uint16_t>(kAvailable + 2) = 2;
        } else {
            at<std::uint16_t>(kAvailable + 4 + 2 * std::uint64_t{size_}) = used_;
        }
    }

    GuestMemory memory;
    DirtyLog log;

  private:
    std::size_t packed_room() const { return size_ - in_use_; }
    void step(std::uint16_t& index, bool& wrap, std::uint16_t by) const {
        index = static_cast<std::uint16_t>(index + by);
        if (index >= size_) {
            index = static_cast<std::uint16_t>(index - size_);
            wrap = !wrap;
        }
    }

    std::uint64_t put_table(std::uint16_t id, const std::vector<Buffer>& buffers) {
        const std::uint64_t table = kIndirectTables + 1024 * std::uint64_t{id};
        for (std::size_t i = 0; i < buffers.size(); ++i) {
            const Buffer& b = buffers[i];
            const std::uint16_t write = b.device_writes ? kWrite : 0;
            if (packed_) {
                at<PackedDescriptor>(table + 16 * i) = {b.address, b.length, 0, write};
            } else {
                const bool more = i + 1 < buffers.size();
                at<Descriptor>(table + 16 * i) = {b.address, b.length,
                                                  static_cast<std::uint16_t>(write | (more ? kNext : 0)),
                                                  static_cast<std::uint16_t>(i + 1)};
            }
        }
        return table;
    }

    std::uint16_t add_split(const std::vector<Buffer>& buffers, bool indirect) {
        std::vector<std::uint16_t> entries;
        for (std::size_t i = 0; i < (indirect ? 1 : buffers.size()); ++i) {
            entries.push_back(free_.back());
            free_.pop_back();
        }
        const std::uint16_t head = entries.front();
        if (indirect) {
            const std::uint64_t table = put_table(head, buffers);
            at<Descriptor>(kTable + 16 * std::uint64_t{head}) = {
                kBase + table, static_cast<std::uint32_t>(16 * buffers.size()), kIndirect, 0};
        } else {
            for (std::size_t i = 0; i < buffers.size(); ++i) {
                const Buffer& b = buffers[i];
                const bool more = i + 1 < buffers.size();
                at<Descriptor>(kTable + 16 * std::uint64_t{entries[i]}) = {
                    b.address, b.length,
                    static_cast<std::uint16_t>((b.device_writes ? kWrite : 0) | (more ? kNext : 0)),
                    more ? entries[i + 1] : std::uint16_t{0}};
            }
        }
        heads_[head] = entries;
        at<std::uint16_t>(kAvailable + 4 + 2 * std::uint64_t(available_ % size_)) = head;
        ++available_;
        at<std::uint16_t>(kAvailable + 2) = available_;
        return head;
    }

    std::uint16_t add_packed(const std::vector<Buffer>& buffers, bool indirect) {
        const std::uint16_t id = free_.back();
        free_.pop_back();
        const std::size_t count = indirect ? 1 : buffers.size();
        const std::uint16_t first = available_;
        std::uint16_t first_flags = 0;
        for (std::size_t i = 0; i < count; ++i) {
            std::uint16_t flags = available_wrap_ ? kPackedAvailable : kPackedUsed;
            if (i + 1 < count) flags |= kNext;
            auto& one = at<PackedDescriptor>(kTable + 16 * std::uint64_t{available_});
            one.id = id;
            if (indirect) {
                one.address = kBase + put_table(id, buffers);
                one.length = static_cast<std::uint32_t>(16 * buffers.size());
                flags |= kIndirect;
            } else {
                one.address = buffers[i].address;
                one.length = buffers[i].length;
                if (buffers[i].device_writes) flags |= kWrite;
            }
            if (i == 0) {
                first_flags = flags;
            } else {
                one.flags = flags;
            }
            step(available_, available_wrap_, 1);
        }
        counts_[id] = static_cast<std::uint16_t>(count);
        in_use_ += count;
        at<PackedDescriptor>(kTable + 16 * std::uint64_t{first}).flags = first_flags;
        return id;
    }

    bool packed_;
    std::uint16_t size_;
    bool event_index_;
    std::byte* elsewhere_;
    struct alignas(64) Line {
        std::byte bytes[64];
    };
    std::vector<Line> bytes_;
    MemoryRegion region_;
    std::vector<std::uint16_t> free_;
    std::vector<std::uint16_t> counts_;              // packed: entries of an id
    std::vector<std::vector<std::uint16_t>> heads_;  // split: entries of a head
    std::size_t in_use_ = 0;
    std::uint16_t available_ = 0;
    bool available_wrap_ = true;
    std::uint16_t used_ = 0;
    bool used_wrap_ = true;
};

}  // namespace gemel::vhost
