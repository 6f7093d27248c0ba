#include "sim/checkers/history.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::sim {

History::History(std::uint64_t data_bytes) : heads_(data_bytes / kSectorBytes, 0) {
    Write first;
    first.begun = Instant{-2};
    first.ended = Instant{-2};
    first.zeroes = true;
    first.acknowledged = true;
    first.stable = true;
    writes_.push_back(first);
    writes_.reserve(4096);
    versions_.reserve(65536);
}

WriteNumber History::begin_write(Instant now, std::uint64_t offset, std::uint64_t length, bool zeroes) {
    const auto number = static_cast<WriteNumber>(writes_.size());
    Write write;
    write.begun = now;
    write.offset = offset;
    write.length = length;
    write.zeroes = zeroes;
    write.losses_when_begun = losses_;
    writes_.push_back(write);
    for (std::uint64_t sector = offset / kSectorBytes; sector < (offset + length) / kSectorBytes; ++sector) {
        if (heads_[sector] == 0) {
            const std::uint64_t block = sector / kSectorsPerBlock;
            if (touched_.empty() || touched_.back() != block) touched_.push_back(block);
            versions_.push_back(Version{0, 0, Instant{-1}, Instant{-1}, 0});
            heads_[sector] = static_cast<std::uint32_t>(versions_.size());
        }
        std::uint32_t slot = 0;
        if (free_versions_.empty()) {
            versions_.emplace_back();
            slot = static_cast<std::uint32_t>(versions_.size());
        } else {
            slot = free_versions_.back();
            free_versions_.pop_back();
        }
        versions_[slot - 1] = Version{number, heads_[sector], Instant{-1}, Instant{-1}, 0};
        heads_[sector] = slot;
    }
    return number;
}

void History::write_acknowledged(Instant now, WriteNumber number, std::uint32_t ack_mask, bool stable) {
    Write& write = writes_[number];
    INVARIANT(write.ended == Instant::never(), "a write ends once");
    write.ended = now;
    write.acknowledged = true;
    write.stable = stable;
    write.ack_mask = ack_mask;
    if (!stable) {
        unstable_.push_back(number);
        return;
    }
    for (std::uint64_t s = write.offset / kSectorBytes; s < (write.offset + write.length) / kSectorBytes;
         ++s) {
        forget_hidden(s, write);
    }
}

void History::write_ended(Instant now, WriteNumber number) {
    Write& write = writes_[number];
    if (write.ended == Instant::never()) write.ended = now;
}

std::vector<WriteNumber> History::flush_acknowledged(Instant begun) {
    std::vector<WriteNumber> made_stable;
    while (!unstable_.empty() && writes_[unstable_.front()].ended < begun) {
        const WriteNumber number = unstable_.front();
        unstable_.pop_front();
        Write& write = writes_[number];
        if (lost(write)) continue;  // its loss was allowed; a later flush cannot bring it back
        write.stable = true;
        made_stable.push_back(number);
        for (std::uint64_t s = write.offset / kSectorBytes; s < (write.offset + write.length) / kSectorBytes;
             ++s) {
            forget_hidden(s, write);
        }
    }
    return made_stable;
}

bool History::lost(const Write& write) const {
    if (write.stable || !write.acknowledged) return false;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const bool was_in_set = (write.ack_mask >> node & 1U) != 0;
        if (was_in_set && losses_[node] == write.losses_when_begun[node]) return false;
    }
    return true;
}

bool History::hides(const Version& newer, const Version& older, Instant begun) const {
    const Write& by = writes_[newer.write];
    const Instant end = writes_[older.write].ended;
    if (by.acknowledged && by.begun > end && by.ended < begun && !lost(by)) return true;
    const bool seen_counts = newer.seen_begun.nanoseconds_since_boot >= 0 &&
                             (by.stable || newer.losses_when_seen == total_losses());
    return seen_counts && newer.seen_begun > end && newer.seen_ended < begun;
}

bool History::allowed(std::uint64_t sector, const Version& version, Instant begun) const {
    for (std::uint32_t i = heads_[sector]; i != 0; i = versions_[i - 1].next) {
        const Version& other = versions_[i - 1];
        if (other.write != version.write && hides(other, version, begun)) return false;
    }
    return true;
}

History::Version* History::find(std::uint64_t sector, Stamp shown, Instant begun) {
    Version* hidden = nullptr;
    for (std::uint32_t i = heads_[sector]; i != 0; i = versions_[i - 1].next) {
        Version& version = versions_[i - 1];
        if (stamp_of(version.write) != shown) continue;
        if (allowed(sector, version, begun)) return &version;
        hidden = &version;
    }
    return hidden;
}

std::string History::describe(std::uint64_t sector, Stamp shown) const {
    std::string text = fmt::format("sector {} shows write {}; known there:", sector, shown);
    for (std::uint32_t i = heads_[sector]; i != 0; i = versions_[i - 1].next) {
        const Write& write = writes_[versions_[i - 1].write];
        const bool open = write.ended == Instant::never();
        text += fmt::format(
            " [{}{} {:.6f}..{} {}{}{}]", versions_[i - 1].write, write.zeroes ? " zeroes" : "",
            Duration{write.begun.nanoseconds_since_boot}.seconds(),
            open ? "open" : fmt::format("{:.6f}", Duration{write.ended.nanoseconds_since_boot}.seconds()),
            write.acknowledged ? "acknowledged" : "unanswered", write.stable ? " stable" : "",
            versions_[i - 1].seen_begun.nanoseconds_since_boot >= 0 ? " seen" : "");
    }
    return text;
}

std::string History::judge(Instant begun, std::uint64_t sector, Stamp shown) const {
    if (heads_[sector] == 0) return shown == kZeroes ? std::string{} : describe(sector, shown);
    const Version* version = const_cast<History*>(this)->find(sector, shown, begun);
    if (version != nullptr && allowed(sector, *version, begun)) return {};
    return describe(sector, shown);
}

std::string History::observe(Instant begun, Instant now, std::uint64_t sector, Stamp shown) {
    std::string breach = judge(begun, sector, shown);
    if (!breach.empty() || heads_[sector] == 0) return breach;
    Version* version = find(sector, shown, begun);
    if (version->seen_begun < begun) {
        version->seen_begun = begun;
        version->seen_ended = now;
        version->losses_when_seen = total_losses();
    }
    return {};
}

std::string History::judge_holds(WriteNumber number, std::uint64_t sector, Stamp shown) const {
    const Write& write = writes_[number];
    for (std::uint32_t i = heads_[sector]; i != 0; i = versions_[i - 1].next) {
        const WriteNumber there = versions_[i - 1].write;
        if (stamp_of(there) == shown && (there == number || writes_[there].ended >= write.begun)) return {};
    }
    return describe(sector, shown);
}

bool History::known(std::uint64_t sector, Stamp shown) const {
    if (heads_[sector] == 0) return shown == kZeroes;
    for (std::uint32_t i = heads_[sector]; i != 0; i = versions_[i - 1].next) {
        if (stamp_of(versions_[i - 1].write) == shown) return true;
    }
    return false;
}

void History::forget_hidden(std::uint64_t sector, const Write& by) {
    std::uint32_t* link = &heads_[sector];
    while (*link != 0) {
        Version& version = versions_[*link - 1];
        if (writes_[version.write].ended < by.begun) {
            free_versions_.push_back(*link);
            *link = version.next;
        } else {
            link = &version.next;
        }
    }
}

}  // namespace gemel::sim
