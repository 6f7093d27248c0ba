#include "sim/world/live_move.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace gemel::sim {
namespace {

constexpr Duration kLook = milliseconds(10);
constexpr Duration kTell = seconds(1);
constexpr std::array<const char*, 5> kSteps = {"migration.over", "migration.copying", "migration.draining",
                                               "migration.arriving", "migration.resumed"};

}  // namespace

void LiveMove::clusterd_died(std::uint32_t node) {
    gates_[node].clear();
    tunnel_ = false;
}

bool LiveMove::holds(std::uint32_t node) const {
    const bool moves = step_ == Step::copying || step_ == Step::draining || step_ == Step::arriving;
    return moves && order_.from == node;
}

void LiveMove::enter(Step step, Duration takes) {
    step_ = step;
    next_ = parts_.tasks.now() + takes;
    const char* name = kSteps[static_cast<std::size_t>(step)];
    parts_.counters.add(name);
    parts_.trace.note_text(parts_.tasks.now(), order_.from, "libvirt.moves", name);
    parts_.world.move_stepped(static_cast<std::uint32_t>(step));
}

void LiveMove::begin(Order order) {
    const std::uint32_t there = 1 - order.from;
    const auto refuse = [&](const char* why) { order.done(false, why); };
    if (step_ != Step::none) return refuse("a move of it is under way");
    const bool open = !order.secret.empty() && gates_[there] == order.secret &&
                      parts_.world.host(there).up() && parts_.network.links_pass(order.from, there);
    if (!open) return refuse("the gate does not answer");
    if (!hosts_[order.from]->vcpus_run() || !parts_.guest.alive() || parts_.guest.node() != order.from)
        return refuse("it does not run here");
    // QEMU connects to its disk before it takes anything
    if (parts_.world.block(there).served_epoch() != order.epoch) return refuse("no socket of its disk there");
    if (!hosts_[there]->receive(order.epoch)) return refuse("a domain of this UUID exists there");
    order_ = std::move(order);
    ++number_;
    tunnel_ = true;
    cancelled_ = flushed_ = false;
    stalled_since_ = Instant::never();
    life_ = parts_.world.host(order_.from).incarnation;
    told_ = parts_.tasks.now();
    patience_ = milliseconds(random_.between(500, 8000));
    constexpr std::array<Mishap, 3> kMishaps = {Mishap::cannot_load, Mishap::reply_lost, Mishap::left_paused};
    mishap_ = random_.chance(1, 4) ? kMishaps[random_.below(kMishaps.size())] : Mishap::none;
    const Duration takes =
        milliseconds(random_.chance(1, 2) ? random_.between(50, 1500) : random_.between(500, 8000));
    parts_.counters.add("migration.begun");
    enter(Step::copying, takes);
    parts_.tasks.after(kLook, [this, number = number_] {
        if (number == number_) tick();
    });
}

void LiveMove::cancel(std::uint32_t from) {
    if (!holds(from)) return;
    cancelled_ = true;
}

// Nothing gets through, or one of the two stands still. For too long: the connection is given up.
bool LiveMove::stalled() {
    const std::uint32_t there = 1 - order_.from;
    const bool passes =
        parts_.network.links_pass(order_.from, there) && parts_.network.links_pass(there, order_.from);
    if (passes && parts_.world.host(there).up()) {
        stalled_since_ = Instant::never();
        return false;
    }
    if (stalled_since_ == Instant::never()) stalled_since_ = parts_.tasks.now();
    if (parts_.tasks.now() - stalled_since_ > patience_) tunnel_ = false;
    return true;
}

std::string LiveMove::failure() {
    if (!parts_.guest.alive() || parts_.guest.node() != order_.from) return "its domain has ended";
    if (!to().incoming()) return "the destination's domain has ended";
    if (!tunnel_) return "the tunnel has ended";
    if (cancelled_ && step_ != Step::arriving) return "cancelled";
    const bool failed = step_ == Step::draining && parts_.guest.errors() != errors_;
    return failed ? "QEMU could not write back what was in flight" : "";
}

void LiveMove::tick() {
    const Host& host = parts_.world.host(order_.from);
    if (!host.powered || host.incarnation != life_) {  // nobody is left to be told
        parts_.counters.add(step_ == Step::resumed ? "migration.source_lost_after" : "migration.source_lost");
        if (step_ != Step::resumed) to().drop_incoming();
        return end(false, "");
    }
    parts_.tasks.after(kLook, [this, number = number_] {
        if (number == number_) tick();
    });
    if (host.paused) return;
    const bool waits = stalled();
    if (step_ != Step::resumed) {
        if (const std::string why = failure(); !why.empty()) return fail(why);
        if (parts_.tasks.now() - told_ >= kTell) {
            told_ = parts_.tasks.now();
            order_.progress();
        }
    }
    if (step_ == Step::resumed && !tunnel_) return finish();
    if (!waits && parts_.tasks.now() >= next_) advance();
}

void LiveMove::advance() {
    switch (step_) {
        case Step::none: return;
        case Step::copying:
            errors_ = parts_.guest.errors();
            from().stop_for_move();
            if (!parts_.guest.idle()) parts_.counters.add("migration.stopped_with_requests");
            return enter(Step::draining, Duration{});
        case Step::draining:
            if (!parts_.guest.idle()) return;
            if (!std::exchange(flushed_, true)) {
                parts_.guest.ask(GuestOperation::flush, 0, 0, false);
                return;
            }
            return enter(Step::arriving, milliseconds(random_.between(2, 300)));
        case Step::arriving:
            if (mishap_ == Mishap::cannot_load) return fail("the destination could not load its state");
            return arrive();
        case Step::resumed: return finish();
    }
}

void LiveMove::arrive() {
    to().arrive();
    enter(Step::resumed, milliseconds(random_.between(1, 200)));
}

// The last reply: whether the source's libvirt hears that it runs there.
void LiveMove::finish() {
    if (tunnel_ && mishap_ != Mishap::reply_lost && mishap_ != Mishap::left_paused) {
        from().leave_after_move();
        return end(true, "");
    }
    const bool resumes = mishap_ == Mishap::reply_lost || (mishap_ == Mishap::none && random_.chance(1, 2));
    parts_.counters.add("migration.reply_lost");
    if (resumes && from().exists()) {
        from().resume_after_move();
        if (from().vcpus_run() && to().vcpus_run()) parts_.counters.add("site.both_resumed");
    } else {
        parts_.counters.add("site.left_paused");
    }
    end(false, "the destination did not answer");
}

// libvirt resumes the source's domain by itself; seldom it does not even do that.
void LiveMove::fail(const std::string& why) {
    parts_.counters.add(fmt::format("migration.failed_{}", kSteps[static_cast<std::size_t>(step_)] + 10));
    parts_.trace.note_text(parts_.tasks.now(), order_.from, "libvirt.fails", why);
    to().drop_incoming();
    const bool stopped = step_ != Step::copying;
    if (stopped && random_.chance(1, 12)) {
        parts_.counters.add("site.left_paused");
    } else {
        from().resume_after_move();
    }
    end(false, why);
}

void LiveMove::end(bool ok, const std::string& why) {
    ++number_;
    const Done done = std::move(order_.done);
    order_.done = nullptr;
    enter(Step::none, Duration{});
    done(ok, why);
}

}  // namespace gemel::sim
