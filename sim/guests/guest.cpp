#include "sim/guests/guest.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace gemel::sim {
namespace {

constexpr std::uint64_t kSlotBits = 16;
constexpr std::uint32_t kSweepBlocks = 16;
constexpr std::uint32_t kDepth = 4;
constexpr std::uint64_t kBusyRequests = 2400;

}  // namespace

Workload Workload::swarm(Prng& random) {
    Workload workload;
    workload.queues = 1 + static_cast<std::uint32_t>(random.below(6));
    workload.hot_blocks = static_cast<std::uint32_t>(std::int64_t{2} << random.below(7));
    workload.largest_sectors = static_cast<std::uint32_t>(std::int64_t{8} << random.below(5));
    if (random.chance(1, 4)) workload.read_weight = 0;
    if (random.chance(1, 4)) workload.flush_weight = 0;
    if (random.chance(1, 4)) workload.fua_weight = 0;
    if (random.chance(1, 2)) workload.zero_weight = 0;
    if (random.chance(1, 2)) workload.discard_weight = 0;
    if (random.chance(1, 5)) workload.flush_weight = 40;
    workload.gap = microseconds(random.between(50, 2500));
    workload.burst = 20 + static_cast<std::uint32_t>(random.below(150));
    workload.rest = milliseconds(random.between(50, 1200));
    return workload;
}

Guest::Guest(EventQueue& queue, Trace& trace, Counters& counters, Prng random, History& history,
             GuestObserver& observer, Workload workload, std::uint64_t data_bytes, bool mode_stable)
    : queue_(queue),
      trace_(trace),
      counters_(counters),
      random_(random),
      history_(history),
      observer_(observer),
      workload_(workload),
      data_bytes_(data_bytes),
      mode_stable_(mode_stable),
      burst_left_(workload.queues, workload.burst),
      count_operation_{counters.id("guest.read"), counters.id("guest.write"), counters.id("guest.flush"),
                       counters.id("guest.discard"), counters.id("guest.write_zeroes")} {
    const std::uint64_t blocks = data_bytes / kBlockBytes;
    for (std::uint32_t i = 0; i < workload_.hot_blocks; ++i) hot_.push_back(random_.below(blocks));
}

void Guest::start(std::uint32_t node, std::uint64_t epoch) {
    INVARIANT(!alive_, "a guest is started once");
    alive_ = true;
    running_ = true;
    node_ = node;
    epoch_ = epoch;
    ++life_;
    trace_.note(queue_.now(), node, "guest.start", epoch);
    for (std::uint32_t q = 0; q < workload_.queues; ++q) schedule(q);
}

void Guest::kill() {
    if (!alive_) return;
    trace_.note(queue_.now(), node_, "guest.killed", epoch_, outstanding_);
    alive_ = false;
    running_ = false;
    port_ = nullptr;
    ++life_;
    for (Slot& slot : slots_) {
        if (slot.active && slot.write != 0) history_.write_ended(queue_.now(), slot.write);
        slot.active = false;
    }
    outstanding_ = 0;
    sweep_at_ = 0;
}

void Guest::go_on(std::uint32_t node, std::uint64_t epoch, FrontPort* port) {
    INVARIANT(alive_, "only a guest that lives moves");
    trace_.note(queue_.now(), node, "guest.moves", epoch, outstanding_);
    set_vcpus(false);
    for (Slot& slot : slots_) {
        if (slot.active && slot.write != 0) history_.write_ended(queue_.now(), slot.write);
        slot.active = false;
    }
    outstanding_ = 0;
    node_ = node;
    epoch_ = epoch;
    port_ = port;
}

void Guest::set_vcpus(bool running) {
    if (running_ == running || !alive_) return;
    trace_.note(queue_.now(), node_, running ? TraceName("guest.resumed") : TraceName("guest.paused"),
                epoch_);
    running_ = running;
    if (!running_) {
        ++life_;
        return;
    }
    for (std::uint32_t q = 0; q < workload_.queues; ++q) schedule(q);
}

void Guest::front_opened(FrontPort& port) {
    port_ = &port;
    for (std::uint32_t i = 0; i < slots_.size() && port_ != nullptr; ++i) {
        if (slots_[i].active) send(i);
    }
}

void Guest::front_lost() {
    port_ = nullptr;
}

void Guest::stop_asking(bool stop) {
    stopped_ = stop;
    if (stop || !running()) return;
    ++life_;
    for (std::uint32_t q = 0; q < workload_.queues; ++q) schedule(q);
}

void Guest::begin_sweep() {
    sweep_ = history_.touched_blocks();
    std::sort(sweep_.begin(), sweep_.end());
    sweep_.erase(std::unique(sweep_.begin(), sweep_.end()), sweep_.end());
    sweep_at_ = 0;
    stop_asking(false);
}

void Guest::schedule(std::uint32_t queue) {
    Duration wait = Duration{static_cast<std::int64_t>(
        random_.below(static_cast<std::uint64_t>(workload_.gap.nanoseconds) * 2 + 1))};
    if (requests_ > kBusyRequests)
        wait = wait * 4 + milliseconds(40);  // enough was asked: only keep it alive
    if (sweeping()) wait = microseconds(50);
    if (burst_left_[queue] == 0) {
        burst_left_[queue] = workload_.burst;
        if (!sweeping()) wait = workload_.rest;
    }
    --burst_left_[queue];
    queue_.after(wait, *this, life_, queue);
}

void Guest::on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t) {
    if (kind != life_ || !running()) return;
    if ((stopped_ || scripted_) && !sweeping()) return;
    if (outstanding_ >= workload_.queues * kDepth) return;  // chains multiply where vCPUs were paused
    issue(static_cast<std::uint32_t>(a));
}

std::uint32_t Guest::take_slot() {
    for (std::uint32_t i = 0; i < slots_.size(); ++i) {
        if (!slots_[i].active) return i;
    }
    slots_.emplace_back();
    return static_cast<std::uint32_t>(slots_.size() - 1);
}

void Guest::place(GuestRequest& request) {
    const std::uint64_t sectors = data_bytes_ / kSectorBytes;
    std::uint64_t sector = hot_[random_.below(hot_.size())] * kSectorsPerBlock;
    std::uint64_t count = 1 + random_.below(workload_.largest_sectors);
    if (random_.chance(1, 2)) {  // whole blocks, as file systems do
        count = (count + kSectorsPerBlock - 1) / kSectorsPerBlock * kSectorsPerBlock;
    } else {
        sector += random_.below(kSectorsPerBlock);
    }
    const bool zeroing =
        request.operation == GuestOperation::discard || request.operation == GuestOperation::write_zeroes;
    if (zeroing && random_.chance(1, 4)) count *= 8;
    sector = std::min(sector, sectors - 1);
    count = std::min(count, sectors - sector);
    request.offset = sector * kSectorBytes;
    request.length = static_cast<std::uint32_t>(count * kSectorBytes);
}

void Guest::choose(GuestRequest& request) {
    const Workload& w = workload_;
    std::uint64_t pick = random_.below(w.read_weight + w.write_weight + w.flush_weight + w.fua_weight +
                                       w.zero_weight + w.discard_weight);
    const auto falls = [&pick](std::uint32_t weight) {
        if (pick < weight) return true;
        pick -= weight;
        return false;
    };
    request.operation = GuestOperation::write;
    if (falls(w.read_weight)) {
        request.operation = GuestOperation::read;
    } else if (falls(w.flush_weight)) {
        request.operation = GuestOperation::flush;
        return;
    } else if (falls(w.fua_weight)) {
        request.fua = true;
    } else if (falls(w.zero_weight)) {
        request.operation = GuestOperation::write_zeroes;
        request.fua = random_.chance(1, 4);
    } else if (falls(w.discard_weight)) {
        request.operation = GuestOperation::discard;
    }
    place(request);
}

void Guest::issue(std::uint32_t queue) {
    const std::uint32_t index = take_slot();
    Slot& slot = slots_[index];
    slot.request = GuestRequest{};
    slot.queue = queue;
    if (sweeping()) {
        std::uint32_t run = 1;
        while (run < kSweepBlocks && sweep_at_ + run < sweep_.size() &&
               sweep_[sweep_at_ + run] == sweep_[sweep_at_] + run) {
            ++run;
        }
        slot.request.offset = sweep_[sweep_at_] * kBlockBytes;
        slot.request.length = run * kBlockBytes;
        sweep_at_ += run;
    } else {
        choose(slot.request);
    }
    begin(index);
}

std::uint64_t Guest::ask(GuestOperation operation, std::uint64_t offset, std::uint32_t length, bool fua) {
    INVARIANT(alive_, "only a guest that runs asks");
    const std::uint32_t index = take_slot();
    Slot& slot = slots_[index];
    slot.request = GuestRequest{};
    slot.request.operation = operation;
    slot.request.offset = offset;
    slot.request.length = length;
    slot.request.fua = fua;
    slot.queue = 0;
    begin(index);
    return slots_[index].request.tag;
}

void Guest::scribble(std::uint64_t tag) {
    for (Slot& slot : slots_) {
        if (slot.active && slot.request.tag == tag) slot.request.stamp = kPoison;
    }
}

void Guest::begin(std::uint32_t index) {
    Slot& slot = slots_[index];
    slot.write = 0;
    slot.begun = queue_.now();
    slot.request.tag = next_tag_++ << kSlotBits | index;
    const GuestOperation operation = slot.request.operation;
    if (operation == GuestOperation::write || operation == GuestOperation::discard ||
        operation == GuestOperation::write_zeroes) {
        slot.write = history_.begin_write(queue_.now(), slot.request.offset, slot.request.length,
                                          operation != GuestOperation::write);
        slot.request.stamp = history_.stamp_of(slot.write);
    }
    slot.active = true;
    ++outstanding_;
    ++requests_;
    counters_.add(count_operation_[static_cast<std::size_t>(operation)]);
    if (port_ != nullptr) send(index);
}

void Guest::send(std::uint32_t index) {
    const GuestRequest request = slots_[index].request;
    trace_.note(queue_.now(), node_, "guest.request", static_cast<std::uint64_t>(request.operation),
                request.offset, request.stamp);
    port_->front_submit(epoch_, request);
}

void Guest::finish_ok(Slot& slot, std::span<const Stamp> read) {
    const GuestRequest& request = slot.request;
    const std::uint32_t mask = observer_.on_acknowledged(node_, epoch_, request);
    if (request.operation == GuestOperation::read) {
        const std::uint64_t first = request.offset / kSectorBytes;
        for (std::size_t i = 0; i < read.size(); ++i) {
            const std::string breach = history_.observe(slot.begun, queue_.now(), first + i, read[i]);
            if (!breach.empty()) {
                observer_.on_breach("D12", fmt::format("a read begun at {:.6f} on node{}: {}",
                                                       Duration{slot.begun.nanoseconds_since_boot}.seconds(),
                                                       node_ + 1, breach));
            }
        }
    } else if (request.operation == GuestOperation::flush) {
        observer_.on_flushed(history_.flush_acknowledged(slot.begun));
    } else {
        history_.write_acknowledged(queue_.now(), slot.write, mask, request.fua || mode_stable_);
        observer_.on_write_acknowledged(slot.write);
    }
}

void Guest::completed(std::uint64_t tag, bool ok, std::span<const Stamp> read, bool io_error) {
    const auto index = static_cast<std::uint32_t>(tag & ((1U << kSlotBits) - 1));
    if (index >= slots_.size() || !slots_[index].active || slots_[index].request.tag != tag) {
        observer_.on_breach("D1", fmt::format("request {} was completed that nobody waits for", tag));
        return;
    }
    Slot& slot = slots_[index];
    trace_.note(queue_.now(), node_, "guest.completed", tag, ok ? 1 : 0, slot.request.stamp);
    ++completions_;
    if (ok) {
        finish_ok(slot, read);
    } else {
        ++errors_;
        if (io_error) observer_.on_io_error(node_, slot.request);
        if (slot.write != 0) history_.write_ended(queue_.now(), slot.write);
    }
    slot.active = false;
    --outstanding_;
    if (listener_) listener_(slot.request, slot.write, ok, read);
    if (running()) schedule(slot.queue);
}

}  // namespace gemel::sim
