#include "sim/world/disk.hpp"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <utility>

#include <fmt/format.h>

#include "base/checksum.hpp"

namespace gemel::sim {
namespace {

constexpr std::int64_t kReadMicros = 90;
constexpr std::int64_t kWriteMicros = 40;
constexpr std::int64_t kFlushMicros = 250;
constexpr std::int64_t kJitterMicros = 160;
constexpr std::int64_t kHangMillis = 4000;

}  // namespace

Disk::Disk(EventQueue& queue, Trace& trace, Prng random, PayloadPool& payloads, std::uint32_t node,
           std::uint64_t metadata_bytes, std::uint64_t data_bytes, Violation violation)
    : queue_(queue),
      trace_(trace),
      random_(random),
      payloads_(payloads),
      node_(node),
      violation_(std::move(violation)),
      current_(metadata_bytes, data_bytes),
      stable_(metadata_bytes, data_bytes) {}

void Disk::attach(std::uint64_t process, DiskClient& client) {
    process_ = process;
    client_ = &client;
}

std::uint32_t Disk::start(Kind kind, std::uint64_t process, std::uint64_t tag, std::uint64_t offset,
                          std::uint64_t length) {
    std::uint32_t index = 0;
    if (free_.empty()) {
        index = static_cast<std::uint32_t>(operations_.size());
        operations_.emplace_back();
    } else {
        index = free_.back();
        free_.pop_back();
    }
    Operation& operation = operations_[index];
    operation.kind = kind;
    operation.active = true;
    operation.stable = false;
    operation.outcome = DiskOutcome::ok;
    operation.process = process;
    operation.tag = tag;
    operation.source = nullptr;
    operation.change.offset = offset;
    operation.change.length = length;
    operation.change.stamps.clear();
    operation.change.bytes.clear();
    operation.change.metadata = false;
    operation.change.gone = false;
    return index;
}

void Disk::read(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length,
                std::uint32_t payload) {
    const std::uint32_t index = start(Kind::read, process, tag, offset, length);
    operations_[index].payload = payloads_.ref(payload);
    schedule(index);
}

void Disk::write(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length,
                 std::uint32_t payload, bool stable) {
    const std::uint32_t index = start(Kind::write, process, tag, offset, length);
    operations_[index].stable = stable;
    operations_[index].payload = payloads_.ref(payload);
    check_overlap(operations_[index], index);
    schedule(index);
}

void Disk::zero(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint64_t length) {
    const std::uint32_t index = start(Kind::zero, process, tag, offset, length);
    check_overlap(operations_[index], index);
    schedule(index);
}

void Disk::flush(std::uint64_t process, std::uint64_t tag) {
    const std::uint32_t index = start(Kind::flush, process, tag, 0, 0);
    operations_[index].covers = log_base_ + log_.size();
    schedule(index);
}

void Disk::hash(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length) {
    schedule(start(Kind::hash, process, tag, offset, length));
}

void Disk::read_metadata(std::uint64_t process, std::uint64_t tag, std::uint64_t offset,
                         std::uint32_t length) {
    const std::uint32_t index = start(Kind::read_metadata, process, tag, offset, length);
    operations_[index].change.metadata = true;
    schedule(index);
}

void Disk::write_metadata(std::uint64_t process, std::uint64_t tag, std::uint64_t offset,
                          std::span<const std::byte> bytes, bool stable) {
    const std::uint32_t index = start(Kind::write_metadata, process, tag, offset, bytes.size());
    Operation& operation = operations_[index];
    operation.stable = stable;
    operation.source = bytes.data();
    operation.change.metadata = true;
    operation.change.bytes.assign(bytes.begin(), bytes.end());
    check_overlap(operation, index);
    schedule(index);
}

void Disk::check_overlap(const Operation& operation, std::uint32_t self) {
    const Change& mine = operation.change;
    for (std::uint32_t i = 0; i < operations_.size(); ++i) {
        const Operation& other = operations_[i];
        if (i == self || !other.active || other.change.metadata != mine.metadata) continue;
        const bool writes =
            other.kind == Kind::write || other.kind == Kind::zero || other.kind == Kind::write_metadata;
        if (!writes) continue;
        const bool apart = other.change.offset + other.change.length <= mine.offset ||
                           mine.offset + mine.length <= other.change.offset;
        if (apart) continue;
        violation_("D5",
                   fmt::format("node{}: two overlapping {} writes in flight on one device: {}+{} and {}+{}{}",
                               node_ + 1, mine.metadata ? "metadata" : "data", other.change.offset,
                               other.change.length, mine.offset, mine.length,
                               other.process == operation.process ? "" : " (one of a dead process)"));
    }
}

bool Disk::touches_bad_sector(const Operation& operation) const {
    if (faults_.bad_sector < 0 || operation.change.metadata) return false;
    const std::uint64_t at = static_cast<std::uint64_t>(faults_.bad_sector) * kSectorBytes;
    return operation.change.offset <= at && at < operation.change.offset + operation.change.length;
}

void Disk::decide_outcome(Operation& operation) {
    const bool reads = operation.kind == Kind::read || operation.kind == Kind::hash;
    bool fails = faults_.dead || (reads && touches_bad_sector(operation));
    if (operation.kind == Kind::flush) fails |= std::exchange(faults_.fail_next_flush, false);
    if (operation.kind == Kind::write) fails |= std::exchange(faults_.fail_next_write, false);
    if (operation.kind == Kind::write_metadata)
        fails |= std::exchange(faults_.fail_next_metadata_write, false);
    if (!fails) return;
    operation.outcome = DiskOutcome::io_error;
    if (!reads || faults_.dead) ++wounds_;
    if (reads) ++read_errors_;
}

void Disk::schedule(std::uint32_t index) {
    Operation& operation = operations_[index];
    decide_outcome(operation);
    std::int64_t micros = kWriteMicros;
    if (operation.kind == Kind::read || operation.kind == Kind::hash ||
        operation.kind == Kind::read_metadata) {
        micros = kReadMicros;
    }
    if (operation.kind == Kind::flush || operation.stable) micros = kFlushMicros;
    micros += static_cast<std::int64_t>(random_.below(kJitterMicros));
    micros *= faults_.slow_factor;
    if (operation.kind == Kind::write && std::exchange(faults_.hang_next, false))
        micros += kHangMillis * 1000;
    queue_.after(microseconds(micros), *this, operation.life, index);
}

void Disk::on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t) {
    const auto index = static_cast<std::uint32_t>(a);
    if (!operations_[index].active || operations_[index].life != kind) return;  // the power went off
    if (paused_) {
        held_.push_back(index);
        return;
    }
    finish(index);
}

// A completion that is shorter than its request (W8): what the kernel wrote is there, the driver submits the
// remainder, and only the last one is the answer.
bool Disk::cut_short(std::uint32_t index) {
    Operation& operation = operations_[index];
    const std::uint64_t sectors = operation.change.length / kSectorBytes;
    const bool possible = operation.kind == Kind::write && operation.outcome == DiskOutcome::ok &&
                          operation.process == process_ && sectors > 1;
    if (faults_.short_writes == 0 || !possible) return false;
    --faults_.short_writes;
    fill_from_payload(operation);
    Change part = operation.change;
    part.length = (1 + random_.below(sectors - 1)) * kSectorBytes;
    part.stamps.resize(part.length / kSectorBytes);
    apply(current_, part);
    log_.push_back(std::move(part));
    queue_.after(microseconds(kWriteMicros + static_cast<std::int64_t>(random_.below(kJitterMicros))), *this,
                 operation.life, index);
    return true;
}

void Disk::finish(std::uint32_t index) {
    if (cut_short(index)) return;
    land(operations_[index]);
    // deliver() may submit and so move operations_: work on a copy of what it needs
    Operation done = std::move(operations_[index]);
    operations_[index].change = std::move(done.change);
    operations_[index].active = false;
    operations_[index].life = done.life + 1;
    free_.push_back(index);
    if (done.process != process_ || client_ == nullptr) {
        INVARIANT(outlived_ > 0, "what a dead process left behind was counted");
        --outlived_;
        return;
    }
    done.change.offset = operations_[index].change.offset;
    done.change.length = operations_[index].change.length;
    deliver(done);
}

void Disk::fill_from_payload(Operation& operation) {
    Change& change = operation.change;
    const std::size_t sectors = change.length / kSectorBytes;
    if (operation.kind == Kind::zero) {
        change.stamps.assign(sectors, kZeroes);
        return;
    }
    change.stamps.assign(sectors, kPoison);
    // a dead process's pages stay pinned for its I/O: only a living one can spoil its buffer
    if (!payloads_.alive(operation.payload)) return;
    const std::span<Stamp> from = payloads_.stamps(operation.payload.handle);
    std::copy_n(from.begin(), std::min(sectors, from.size()), change.stamps.begin());
}

void Disk::land(Operation& operation) {
    Change& change = operation.change;
    if (operation.kind == Kind::flush) return finish_flush(operation);
    if (operation.kind == Kind::write || operation.kind == Kind::zero) {
        if (operation.process == process_ || operation.kind == Kind::zero) fill_from_payload(operation);
    } else if (operation.kind != Kind::write_metadata) {
        return;
    }
    if (operation.kind == Kind::write_metadata && operation.process == process_ &&
        std::memcmp(operation.source, change.bytes.data(), change.bytes.size()) != 0) {
        violation_("D17",
                   fmt::format("node{}: a metadata buffer changed while it was being written", node_ + 1));
    }
    if (operation.kind == Kind::write_metadata && std::exchange(faults_.misdirect_next, false)) {
        const std::uint64_t blocks = current_.metadata.size() / change.length;
        if (blocks > 1) {
            ++wounds_;
            ++strays_;
            // a second copy, elsewhere: as a stray write of a neighbour lands here (scenario M7)
            Change stray = change;
            const std::uint64_t here = change.offset / change.length;
            stray.offset = (here + 1 + random_.below(blocks - 1)) % blocks * change.length;
            apply(current_, stray);
            apply(stable_, stray);
        }
    }
    trace_.note(queue_.now(), node_,
                change.metadata ? TraceName("disk.land_metadata") : TraceName("disk.land"), change.offset,
                change.length, change.stamps.empty() ? operation.stable : change.stamps[0]);
    if (operation.outcome != DiskOutcome::ok) {
        if (random_.chance(1, 2)) return;  // an error does not say that nothing was written
    } else if (!change.metadata && faults_.bad_sector >= 0 && touches_bad_sector(operation)) {
        faults_.bad_sector = -1;
    }
    apply(current_, change);
    if (operation.stable && operation.outcome == DiskOutcome::ok) {
        settle_overlapping(change);
        apply(stable_, change);
        return;
    }
    log_.push_back(change);
}

void Disk::finish_flush(Operation& operation) {
    const std::size_t end = static_cast<std::size_t>(std::max(operation.covers, log_base_) - log_base_);
    for (std::size_t i = log_start_; i < std::min(end, log_.size()); ++i) {
        Change& change = log_[i];
        if (change.gone) continue;
        // a failed flush drops its dirty pages: nothing will write them again
        if (operation.outcome == DiskOutcome::ok || random_.chance(1, 2)) apply(stable_, change);
        change.gone = true;
    }
    trim_log();
}

void Disk::trim_log() {
    while (log_start_ < log_.size() && log_[log_start_].gone) ++log_start_;
    if (log_start_ == log_.size() || log_start_ > 256) {
        log_.erase(log_.begin(), log_.begin() + static_cast<std::ptrdiff_t>(log_start_));
        log_base_ += log_start_;
        log_start_ = 0;
    }
}

// A later stable write of the same bytes must not be undone when an older one is flushed: what it overlaps
// becomes stable first, and before that what those overlap, or the flush would put the oldest over them.
void Disk::settle_overlapping(const Change& change) {
    std::vector<std::size_t> settled;
    const auto overlap = [](const Change& a, const Change& b) {
        return a.metadata == b.metadata && a.offset < b.offset + b.length && b.offset < a.offset + a.length;
    };
    for (std::size_t i = log_.size(); i > log_start_; --i) {
        const Change& older = log_[i - 1];
        if (older.gone) continue;
        const bool touched = overlap(older, change) || std::ranges::any_of(settled, [&](std::size_t newer) {
                                 return overlap(older, log_[newer]);
                             });
        if (touched) settled.push_back(i - 1);
    }
    for (const std::size_t i : std::views::reverse(settled)) {
        apply(stable_, log_[i]);
        log_[i].gone = true;
    }
}

void Disk::apply(Image& image, const Change& change) {
    if (change.metadata) {
        if (&image == &stable_) ++stable_metadata_version_;
        image.metadata.write(change.offset, change.bytes);
    } else {
        image.data.write(change.offset / kSectorBytes, change.stamps);
    }
}

void Disk::apply_torn(Image& image, const Change& change) {
    if (change.metadata && &image == &stable_) ++stable_metadata_version_;
    for (std::uint64_t at = 0; at < change.length; at += kSectorBytes) {
        if (random_.chance(1, 2)) continue;
        if (change.metadata) {
            const std::size_t count = std::min<std::size_t>(kSectorBytes, change.bytes.size() - at);
            image.metadata.write(change.offset + at, std::span(change.bytes).subspan(at, count));
        } else {
            image.data.set((change.offset + at) / kSectorBytes, change.stamps[at / kSectorBytes]);
        }
    }
}

void Disk::maybe_keep(const Change& change) {
    switch (random_.below(4)) {
        case 0: apply(stable_, change); break;
        case 1: apply_torn(stable_, change); break;
        default: break;
    }
}

void Disk::power_cut() {
    for (std::size_t i = log_start_; i < log_.size(); ++i) {
        if (!log_[i].gone) maybe_keep(log_[i]);
    }
    log_base_ += log_.size();
    log_.clear();
    log_start_ = 0;
    for (std::uint32_t i = 0; i < operations_.size(); ++i) {
        Operation& operation = operations_[i];
        if (!operation.active) continue;
        if (operation.kind == Kind::write || operation.kind == Kind::zero) {
            if (operation.process == process_ || operation.kind == Kind::zero) fill_from_payload(operation);
            maybe_keep(operation.change);
        } else if (operation.kind == Kind::write_metadata) {
            maybe_keep(operation.change);
        }
        operation.active = false;
        ++operation.life;
        free_.push_back(i);
    }
    held_.clear();
    outlived_ = 0;
    process_ = 0;
    client_ = nullptr;
    paused_ = false;
    current_ = stable_;
}

void Disk::process_died() {
    for (Operation& operation : operations_) {
        if (!operation.active || operation.process != process_) continue;
        if (operation.kind == Kind::write) fill_from_payload(operation);
        ++outlived_;
    }
    process_ = 0;
    client_ = nullptr;
}

void Disk::pause(bool paused) {
    paused_ = paused;
    if (paused) return;
    const std::vector<std::uint32_t> held = std::exchange(held_, {});
    for (const std::uint32_t index : held) {
        if (operations_[index].active) finish(index);
    }
}

void Disk::restore(const Image& image) {
    stable_ = image;
    current_ = image;
    ++stable_metadata_version_;
    ++restores_;
    wounds_ = strays_ = 0;
    read_errors_ = 0;
}

bool Disk::changes_stable(const Change& change, std::span<const Stamp> stamps) const {
    for (std::size_t i = 0; i < stamps.size(); ++i) {
        if (stable_.data.get(change.offset / kSectorBytes + i) != stamps[i]) return true;
    }
    return stamps.empty();
}

bool Disk::unstable_in(std::uint64_t offset, std::uint64_t length) const {
    const auto meets = [&](const Change& change) {
        return !change.metadata && change.offset < offset + length && offset < change.offset + change.length;
    };
    for (std::size_t i = log_start_; i < log_.size(); ++i) {
        if (!log_[i].gone && meets(log_[i]) && changes_stable(log_[i], log_[i].stamps)) return true;
    }
    return std::ranges::any_of(operations_, [&](const Operation& operation) {
        const bool writes = operation.kind == Kind::write || operation.kind == Kind::zero;
        if (!operation.active || !writes || !meets(operation.change)) return false;
        const bool known = operation.kind == Kind::write && payloads_.alive(operation.payload);
        return !known ||
               changes_stable(
                   operation.change,
                   payloads_.stamps(operation.payload.handle).first(operation.change.length / kSectorBytes));
    });
}

void Disk::deliver(Operation& operation) {
    if (operation.outcome != DiskOutcome::ok) {
        if (operation.kind == Kind::read_metadata) {
            return client_->metadata_read_done(operation.tag, operation.outcome, {});
        }
        if (operation.kind == Kind::hash) return client_->hash_done(operation.tag, operation.outcome, 0, 0);
        return client_->disk_done(operation.tag, operation.outcome);
    }
    if (operation.kind == Kind::read_metadata) {
        read_buffer_.resize(operation.change.length);
        current_.metadata.read(operation.change.offset, read_buffer_);
        return client_->metadata_read_done(operation.tag, operation.outcome, read_buffer_);
    }
    if (operation.kind == Kind::hash) {
        std::vector<Stamp> stamps(operation.change.length / kSectorBytes);
        current_.data.read(operation.change.offset / kSectorBytes, stamps);
        const Hash128 hash = hash128(std::as_bytes(std::span(stamps)));
        return client_->hash_done(operation.tag, operation.outcome, hash.high, hash.low);
    }
    if (operation.kind == Kind::read && payloads_.alive(operation.payload)) {
        const std::span<Stamp> into = payloads_.stamps(operation.payload.handle);
        const std::size_t sectors =
            std::min<std::size_t>(into.size(), operation.change.length / kSectorBytes);
        current_.data.read(operation.change.offset / kSectorBytes, into.first(sectors));
    }
    client_->disk_done(operation.tag, operation.outcome);
}

}  // namespace gemel::sim
