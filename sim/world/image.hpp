// Image: what one disk holds, sparse. The data area is stamps (payload.hpp), the metadata area real bytes.
// Two images make a disk: what a reader sees now, and what survives a power cut.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/world/payload.hpp"

namespace gemel::sim {

// Pages of `N` elements of T, made when first written; what was never written reads as T{}.
template <typename T, std::size_t N>
class SparseArray {
  public:
    explicit SparseArray(std::uint64_t elements) : size_(elements), index_((elements + N - 1) / N, 0) {}

    std::uint64_t size() const { return size_; }
    T get(std::uint64_t at) const {
        const std::uint32_t page = index_[at / N];
        return page == 0 ? T{} : pages_[page - 1][at % N];
    }
    void set(std::uint64_t at, T value) { page_for(at)[at % N] = value; }
    void read(std::uint64_t at, std::span<T> into) const {
        for (std::size_t done = 0; done < into.size();) {
            const std::size_t inside = (at + done) % N;
            const std::size_t count = std::min(N - inside, into.size() - done);
            const std::uint32_t page = index_[(at + done) / N];
            if (page == 0) {
                std::fill_n(into.data() + done, count, T{});
            } else {
                std::copy_n(pages_[page - 1].data() + inside, count, into.data() + done);
            }
            done += count;
        }
    }
    void write(std::uint64_t at, std::span<const T> from) {
        for (std::size_t done = 0; done < from.size();) {
            const std::size_t inside = (at + done) % N;
            const std::size_t count = std::min(N - inside, from.size() - done);
            std::copy_n(from.data() + done, count, page_for(at + done).data() + inside);
            done += count;
        }
    }
    void zero(std::uint64_t at, std::uint64_t count) {
        for (std::uint64_t done = 0; done < count;) {
            const std::size_t inside = (at + done) % N;
            const std::uint64_t step = std::min<std::uint64_t>(N - inside, count - done);
            const std::uint32_t page = index_[(at + done) / N];
            if (page != 0) std::fill_n(pages_[page - 1].data() + inside, step, T{});
            done += step;
        }
    }
    // calls function(first element, page) for each page that was ever written
    template <typename Function>
    void for_each_page(Function&& function) const {
        for (std::uint64_t i = 0; i < index_.size(); ++i) {
            if (index_[i] != 0) function(i * N, pages_[index_[i] - 1]);
        }
    }

  private:
    using Page = std::array<T, N>;
    Page& page_for(std::uint64_t at) {
        std::uint32_t& page = index_.at(at / N);
        if (page == 0) {
            pages_.emplace_back();
            page = static_cast<std::uint32_t>(pages_.size());
        }
        return pages_[page - 1];
    }
    std::uint64_t size_;
    std::vector<std::uint32_t> index_;  // 0: never written; otherwise the page's number + 1
    std::vector<Page> pages_;
};

struct Image {
    Image(std::uint64_t metadata_bytes, std::uint64_t data_bytes)
        : metadata(metadata_bytes), data(data_bytes / kSectorBytes) {}
    SparseArray<std::byte, kSectorBytes> metadata;
    SparseArray<Stamp, kSectorsPerBlock> data;
};

}  // namespace gemel::sim
