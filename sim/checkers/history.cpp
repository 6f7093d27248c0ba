#include "sim/checkers/history.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::sim {

History::History(std::uint64_t data_bytes) : sectors_(data_bytes / kSectorBytes) {
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
        if (sectors_[sector].head == 0) {
            const std::uint64_t block = sector / kSectorsPerBlock;
            if (touched_.empty() || touched_.back() != block) touched_.push_back(block);
            versions_.push_back(Version{0, 0, Instant{-1}, Instant{-1}, 0});
            sectors_[sector].head = static_cast<std::uint32_t>(versions_.size());
        }
        std::uint32_t slot = 0;
        if (free_versions_.empty()) {
            versions_.emplace_back();
            slot = static_cast<std::uint32_t>(versions_.size());
        } else {
            slot = free_versions_.back();
            free_versions_.pop_back();
        }
        versions_[slot - 1] = Version{number, sectors_[sector].head, Instant{-1}, Instant{-1}, 0};
        sectors_[sector].head = slot;
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

bool History::forgot(std::uint32_t node, Instant since) const {
    return std::ranges::any_of(writes_, [&](const Write& write) {
        return write.begun >= since && !write.stable && losses_[node] > write.losses_when_begun[node];
    });
}

// A later write that was acknowledged hides it, unless that may be lost; so does a later read of something
// else. Versions are in the order in which they began, the newest first: behind the first that began no later
// than this one ended there is none that could hide it as a write.
bool History::allowed(std::uint64_t sector, const Version& version, Instant begun) const {
    const Instant end = writes_[version.write].ended;
    if (end == Instant::never()) return true;
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
        const Write& by = writes_[versions_[i - 1].write];
        if (by.begun <= end) break;
        if (by.acknowledged && by.ended < begun && !lost(by)) return false;
    }
    return !hidden_by_a_read(sector, version, begun);
}

bool History::hidden_by_a_read(std::uint64_t sector, const Version& version, Instant begun) const {
    const Instant end = writes_[version.write].ended;
    if (sectors_[sector].seen == 0) return false;
    const Seen& seen = seen_[sectors_[sector].seen - 1];
    if ((seen.last == version.write ? seen.other_begun : seen.last_begun) <= end) return false;
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
        const Version& other = versions_[i - 1];
        if (other.write == version.write || other.seen_begun.nanoseconds_since_boot < 0) continue;
        const bool counts = writes_[other.write].stable || other.losses_when_seen == total_losses();
        if (other.seen_begun > end && other.seen_ended < begun && counts) return true;
    }
    return false;
}

void History::remember_seen(std::uint64_t sector, WriteNumber write, Instant begun) {
    if (sectors_[sector].seen == 0) {
        seen_.emplace_back();
        sectors_[sector].seen = static_cast<std::uint32_t>(seen_.size());
    }
    Seen& seen = seen_[sectors_[sector].seen - 1];
    if (seen.last != write) {
        if (begun < seen.last_begun) {
            seen.other_begun = std::max(seen.other_begun, begun);
            return;
        }
        seen.other_begun = seen.last_begun;
        seen.last = write;
    }
    seen.last_begun = std::max(seen.last_begun, begun);
}

History::Found History::find(std::uint64_t sector, Stamp shown, Instant begun) const {
    Found found;
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
        if (!shows(versions_[i - 1].write, shown)) continue;
        found = Found{i, allowed(sector, versions_[i - 1], begun)};
        if (found.allowed) break;
    }
    return found;
}

std::string History::describe(std::uint64_t sector, Stamp shown) const {
    std::string text = fmt::format("sector {} shows write {}; known there:", sector, shown);
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
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
    const bool fine = sectors_[sector].head == 0 ? shown == kZeroes : find(sector, shown, begun).allowed;
    return fine ? std::string{} : describe(sector, shown);
}

std::string History::observe(Instant begun, Instant now, std::uint64_t sector, Stamp shown) {
    if (sectors_[sector].head == 0) return judge(begun, sector, shown);
    const Found found = find(sector, shown, begun);
    if (!found.allowed) return describe(sector, shown);
    Version& version = versions_[found.version - 1];
    if (version.seen_begun < begun) {
        version.seen_begun = begun;
        version.seen_ended = now;
        version.losses_when_seen = total_losses();
        remember_seen(sector, version.write, begun);
    }
    return {};
}

std::string History::judge_holds(WriteNumber number, std::uint64_t sector, Stamp shown) const {
    const Write& write = writes_[number];
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
        const WriteNumber there = versions_[i - 1].write;
        if (shows(there, shown) && (there == number || writes_[there].ended >= write.begun)) return {};
    }
    return describe(sector, shown);
}

bool History::known(std::uint64_t sector, Stamp shown) const {
    if (sectors_[sector].head == 0) return shown == kZeroes;
    for (std::uint32_t i = sectors_[sector].head; i != 0; i = versions_[i - 1].next) {
        if (shows(versions_[i - 1].write, shown)) return true;
    }
    return false;
}

void History::forget_hidden(std::uint64_t sector, const Write& by) {
    std::uint32_t* link = &sectors_[sector].head;
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
