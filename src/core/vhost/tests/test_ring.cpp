#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

#include <gtest/gtest.h>

#include "base/prng.hpp"
#include "core/vhost/tests/guest.hpp"

namespace gemel::vhost {
namespace {

constexpr std::uint64_t kHere = Guest::kBase + Guest::kData;

std::vector<Buffer> buffers(std::uint32_t count) {
    std::vector<Buffer> all;
    for (std::uint32_t i = 0; i < count; ++i) all.push_back({kHere + 64 * i, 16 + i, i + 1 == count});
    return all;
}

class Rings : public testing::TestWithParam<std::tuple<bool, bool>> {
  protected:
    bool packed() const { return std::get<0>(GetParam()); }
    bool event_index() const { return std::get<1>(GetParam()); }
};

TEST_P(Rings, a_chain_is_taken_as_it_was_given) {
    for (const bool indirect : {false, true}) {
        Guest guest(packed(), 8, event_index());
        const auto ring = guest.open();
        ASSERT_NE(ring, nullptr);
        Chain chain;
        EXPECT_EQ(ring->take(chain), Taken::nothing);
        const auto id = guest.add(buffers(3), indirect);
        ASSERT_EQ(ring->take(chain), Taken::chain);
        EXPECT_EQ(chain.id, *id);
        ASSERT_EQ(chain.pieces.size(), 3U);
        for (std::uint32_t i = 0; i < 3; ++i) {
            EXPECT_EQ(chain.pieces[i].guest_address, kHere + 64 * i);
            EXPECT_EQ(chain.pieces[i].memory, guest.raw() + Guest::kData + 64 * i);
            EXPECT_EQ(chain.pieces[i].length, 16 + i);
            EXPECT_EQ(chain.pieces[i].device_writes, i == 2);
        }
        EXPECT_EQ(ring->in_flight(), 1U);
        EXPECT_TRUE(guest.reap().empty());
        ring->put(chain, 17);
        EXPECT_TRUE(guest.reap().empty()) << "nothing is shown before publish()";
        ring->publish();
        const auto back = guest.reap();
        ASSERT_EQ(back.size(), 1U);
        EXPECT_EQ(back.front(), std::pair(*id, 17U));
        EXPECT_EQ(ring->in_flight(), 0U);
    }
}

// Thousands of chains of random shape, given back in random order: each once, none lost, over many turns of
// the ring; and with in-flight records the device's process is killed now and then, also in the middle of
// showing a batch.
class Traffic {
  public:
    Traffic(bool packed, bool event_index, bool records, std::uint64_t seed)
        : packed_(packed), guest_(packed, 16, event_index), prng_(seed) {
        if (records) records_.resize(in_flight_bytes(packed, 16) / 8);
        open();
    }

    void run(int steps) {
        for (int i = 0; i < steps; ++i) {
            const auto what = prng_.below(10);
            if (what < 4) {
                add();
            } else if (what < 7) {
                take();
            } else if (what < 9 || records_.empty()) {
                give_back();
            } else {
                kill();
            }
        }
        while (!given_.empty()) {
            take();
            give_back();
        }
        EXPECT_EQ(ring_->in_flight(), 0U);
    }
    int completed = 0;

  private:
    std::span<std::byte> records() { return std::as_writable_bytes(std::span(records_)); }
    void open() {
        RingSetup setup = guest_.setup();
        setup.in_flight = records();
        ring_ = guest_.open(setup);
        ASSERT_NE(ring_, nullptr);
    }
    void add() {
        const bool indirect = prng_.below(3) == 0;
        const auto id = guest_.add(buffers(1 + static_cast<std::uint32_t>(prng_.below(4))), indirect);
        if (!id) return;
        EXPECT_FALSE(std::ranges::count(given_, *id)) << "the driver's own rule";
        given_.push_back(*id);
        fresh_.push_back(*id);
    }
    void take() {
        Chain chain;
        while (ring_->take(chain) == Taken::chain) {
            ASSERT_FALSE(fresh_.empty()) << "an entry that was not waiting";
            EXPECT_EQ(chain.id, fresh_.front());
            fresh_.pop_front();
            held_.push_back(chain);
        }
        EXPECT_FALSE(ring_->broken()) << ring_->problem();
        EXPECT_TRUE(fresh_.empty());
    }
    std::vector<std::uint16_t> put_some() {
        std::vector<std::uint16_t> shown;
        for (auto many = prng_.below(4); many > 0 && !held_.empty(); --many) {
            const auto which = static_cast<std::ptrdiff_t>(prng_.below(held_.size()));
            const Chain chain = held_[static_cast<std::size_t>(which)];
            order_.erase(std::remove(order_.begin(), order_.end(), chain.id), order_.end());
            held_.erase(held_.begin() + which);
            ring_->put(chain, chain.id);
            shown.push_back(chain.id);
        }
        return shown;
    }
    void reaped(const std::vector<std::uint16_t>& shown) {
        const auto back = guest_.reap();
        ASSERT_EQ(back.size(), shown.size());
        for (std::size_t i = 0; i < back.size(); ++i) {
            EXPECT_EQ(back[i].first, shown[i]);
            given_.erase(std::remove(given_.begin(), given_.end(), shown[i]), given_.end());
            ++completed;
        }
    }
    void give_back() {
        const auto shown = put_some();
        ring_->publish();
        reaped(shown);
    }
    // What is held comes again in the order in which it was taken, before what is new.
    void kill() {
        std::deque<std::uint16_t> again;
        const auto take_order = [&] {
            // held_ is in the order of taking: entries are appended by take() and only ever removed
            for (const Chain& chain : held_) again.push_back(chain.id);
        };
        switch (prng_.below(3)) {
            case 0: take_order(); break;
            case 1: {  // some were put and not shown
                std::vector<Chain> before(held_.begin(), held_.end());
                put_some();
                for (const Chain& chain : before) again.push_back(chain.id);
                break;
            }
            default: {  // shown, and that was not noted any more
                const auto shown = put_some();
                auto noted = records_;
                ring_->publish();
                if (packed_) {  // its index is written before the ring
                    const auto* after = reinterpret_cast<const PackedRecords*>(records_.data());
                    auto* before = reinterpret_cast<PackedRecords*>(noted.data());
                    before->used_index = after->used_index;
                    before->used_wrap = after->used_wrap;
                }
                records_ = noted;
                reaped(shown);
                take_order();
                break;
            }
        }
        held_.clear();
        for (auto it = again.rbegin(); it != again.rend(); ++it) fresh_.push_front(*it);
        open();
    }

    bool packed_;
    Guest guest_;
    Prng prng_;
    std::vector<std::uint64_t> records_;
    std::unique_ptr<Ring> ring_;
    std::vector<std::uint16_t> given_;
    std::deque<std::uint16_t> fresh_;
    std::vector<std::uint16_t> order_;
    std::deque<Chain> held_;
};

TEST_P(Rings, every_chain_comes_back_once) {
    for (const bool records : {false, true}) {
        for (std::uint64_t seed = 1; seed <= 200; ++seed) {
            SCOPED_TRACE(testing::Message() << "seed " << seed << (records ? ", with kills" : ""));
            Traffic traffic(packed(), event_index(), records, seed);
            traffic.run(600);
            EXPECT_GT(traffic.completed, 100);
            if (HasFailure()) return;
        }
    }
}

TEST_P(Rings, the_guest_is_told_when_it_asked) {
    Guest guest(packed(), 8, event_index());
    const auto ring = guest.open();
    Chain chain;
    for (int turn = 0; turn < 20; ++turn) {
        guest.ask_to_be_told();
        guest.add(buffers(1));
        guest.add(buffers(1));
        ASSERT_EQ(ring->take(chain), Taken::chain);
        ring->put(chain, 0);
        EXPECT_TRUE(ring->publish());
        EXPECT_FALSE(ring->publish()) << "nothing new";
        ASSERT_EQ(ring->take(chain), Taken::chain);
        ring->put(chain, 0);
        EXPECT_EQ(ring->publish(), !event_index()) << "it asked for one";
        guest.reap();
    }
}

TEST_P(Rings, what_came_before_the_wish_for_kicks_is_not_overlooked) {
    Guest guest(packed(), 8, event_index());
    const auto ring = guest.open();
    EXPECT_FALSE(ring->want_kicks(true));
    guest.add(buffers(1));
    EXPECT_TRUE(ring->want_kicks(true));
    Chain chain;
    EXPECT_EQ(ring->take(chain), Taken::chain);
    EXPECT_FALSE(ring->want_kicks(true));
    EXPECT_FALSE(ring->want_kicks(false));
}

TEST_P(Rings, goes_on_where_it_was_stopped) {
    Guest guest(packed(), 8, event_index());
    auto ring = guest.open();
    Chain chain;
    for (int i = 0; i < 11; ++i) {
        guest.add(buffers(1));
        ASSERT_EQ(ring->take(chain), Taken::chain);
        ring->put(chain, 0);
        ring->publish();
        guest.reap();
    }
    RingSetup setup = guest.setup();
    setup.base = ring->base();
    ring = guest.open(setup);
    ASSERT_NE(ring, nullptr);
    const auto id = guest.add(buffers(2));
    ASSERT_EQ(ring->take(chain), Taken::chain);
    EXPECT_EQ(chain.id, *id);
}

TEST_P(Rings, what_it_writes_is_logged) {
    Guest guest(packed(), 8, event_index());
    std::vector<std::byte> bits((Guest::kBase + Guest::kBytes) / kLogPageBytes / 8);
    guest.log = DirtyLog(bits);
    RingSetup setup = guest.setup();
    setup.log_used = true;
    setup.used_log = Guest::kBase + Guest::kUsed;
    const auto ring = guest.open(setup);
    guest.add(buffers(1));
    Chain chain;
    ASSERT_EQ(ring->take(chain), Taken::chain);
    ring->put(chain, 1);
    ring->publish();
    const std::uint64_t page = (Guest::kBase + (packed() ? Guest::kTable : Guest::kUsed)) / kLogPageBytes;
    EXPECT_NE(bits[page / 8] & std::byte(1U << page % 8), std::byte{0});
}

TEST_P(Rings, parts_outside_the_memory_are_refused) {
    Guest guest(packed(), 8, event_index());
    const RingSetup good = guest.setup();
    for (std::uint64_t RingSetup::*part :
         {&RingSetup::descriptors, &RingSetup::available, &RingSetup::used}) {
        RingSetup setup = good;
        setup.*part = Guest::kUser + Guest::kBytes - 2;
        EXPECT_EQ(guest.open(setup), nullptr);
        setup.*part = ~std::uint64_t{0};
        EXPECT_EQ(guest.open(setup), nullptr);
        setup.*part = good.*part + 1;
        EXPECT_EQ(guest.open(setup), nullptr) << "not aligned";
    }
    RingSetup setup = good;
    setup.size = 0;
    EXPECT_EQ(guest.open(setup), nullptr);
    setup.size = 4096;
    EXPECT_EQ(guest.open(setup), nullptr);
    std::vector<std::uint64_t> records(2);
    setup = good;
    setup.in_flight = std::as_writable_bytes(std::span(records));
    EXPECT_EQ(guest.open(setup), nullptr) << "too few records";
}

// ---- drivers that break the rules ----

TEST_P(Rings, a_buffer_outside_the_memory_breaks_it) {
    for (const Buffer bad : {Buffer{0, 16, false}, Buffer{Guest::kBase + Guest::kBytes - 8, 16, false},
                             Buffer{~std::uint64_t{0} - 4, 16, true}, Buffer{kHere, 0, true}}) {
        for (const bool indirect : {false, true}) {
            Guest guest(packed(), 8, event_index());
            const auto ring = guest.open();
            guest.add({bad}, indirect);
            Chain chain;
            EXPECT_EQ(ring->take(chain), Taken::broken);
            EXPECT_TRUE(ring->broken());
            EXPECT_EQ(ring->take(chain), Taken::broken) << "for good";
        }
    }
}

TEST_P(Rings, reading_after_writing_breaks_it) {
    Guest guest(packed(), 8, event_index());
    const auto ring = guest.open();
    guest.add({{kHere, 16, true}, {kHere + 64, 16, false}});
    Chain chain;
    EXPECT_EQ(ring->take(chain), Taken::broken);
}

TEST_P(Rings, bad_indirect_tables_break_it) {
    const auto breaks = [this](auto&& spoil, bool agreed = true) {
        Guest guest(packed(), 8, event_index());
        const auto ring = guest.open(guest.setup(agreed));
        const auto id = guest.add(buffers(2), true);
        // the only entry is the first of the table in a packed ring, the head's in a split one
        const std::uint64_t entry = packed() ? 0 : std::uint64_t{*id} * 16;
        spoil(guest, guest.at<Descriptor>(entry), Guest::kIndirectTables + 1024 * std::uint64_t{*id});
        Chain chain;
        EXPECT_EQ(ring->take(chain), Taken::broken);
    };
    breaks([](Guest&, Descriptor&, std::uint64_t) {}, false);
    breaks([](Guest&, Descriptor& d, std::uint64_t) { d.length = 0; });
    breaks([](Guest&, Descriptor& d, std::uint64_t) { d.length = 17; });
    breaks([](Guest&, Descriptor& d, std::uint64_t) { d.length = 16 * (kMaxPieces + 1); });
    breaks([](Guest&, Descriptor& d, std::uint64_t) { d.address = Guest::kBase + Guest::kBytes - 16; });
    breaks([this](Guest& g, Descriptor&, std::uint64_t table) {  // a table in a table
        (packed() ? g.at<PackedDescriptor>(table).flags : g.at<Descriptor>(table).flags) |= kIndirect;
    });
}

INSTANTIATE_TEST_SUITE_P(Kinds, Rings, testing::Combine(testing::Bool(), testing::Bool()),
                         [](const auto& one) {
                             return std::string(std::get<0>(one.param) ? "packed" : "split") +
                                    (std::get<1>(one.param) ? "_events" : "");
                         });

// What a ring of two buffers says after the guest did something that no driver does.
template <typename Spoil>
Taken taken_after(bool packed, Spoil&& spoil) {
    Guest guest(packed, 8, false);
    const auto ring = guest.open();
    guest.add(buffers(2));
    spoil(guest);
    Chain chain;
    return ring->take(chain);
}

TEST(SplitRing, entries_that_no_driver_makes) {
    const auto taken = [](auto&& spoil) { return taken_after(false, spoil); };
    EXPECT_EQ(taken([](Guest&) {}), Taken::chain);
    EXPECT_EQ(taken([](Guest& g) { g.at<std::uint16_t>(Guest::kAvailable + 2) = 9; }), Taken::broken);
    EXPECT_EQ(taken([](Guest& g) { g.at<std::uint16_t>(Guest::kAvailable + 4) = 8; }), Taken::broken);
    EXPECT_EQ(taken([](Guest& g) { g.at<Descriptor>(0).next = 8; }), Taken::broken);
    EXPECT_EQ(taken([](Guest& g) { g.at<Descriptor>(0).next = 0; }), Taken::broken) << "a loop";
    EXPECT_EQ(taken([](Guest& g) { g.at<Descriptor>(0).flags |= kIndirect; }), Taken::broken);
}

TEST(SplitRing, the_same_entry_twice) {
    Guest guest(false, 8, false);
    const auto ring = guest.open();
    const auto id = guest.add(buffers(1));
    Chain chain;
    ASSERT_EQ(ring->take(chain), Taken::chain);
    guest.at<std::uint16_t>(Guest::kAvailable + 6) = *id;
    guest.at<std::uint16_t>(Guest::kAvailable + 2) = 2;
    EXPECT_EQ(ring->take(chain), Taken::broken);
}

TEST(SplitRing, a_size_that_is_no_power_of_two) {
    Guest guest(false, 8, false);
    RingSetup setup = guest.setup();
    setup.size = 6;
    EXPECT_EQ(guest.open(setup), nullptr);
}

TEST(PackedRing, entries_that_no_driver_makes) {
    const auto taken = [](auto&& spoil) { return taken_after(true, spoil); };
    EXPECT_EQ(taken([](Guest&) {}), Taken::chain);
    EXPECT_EQ(taken([](Guest& g) { g.at<PackedDescriptor>(16).id = 8; }), Taken::broken);
    EXPECT_EQ(taken([](Guest& g) { g.at<PackedDescriptor>(16).flags |= kIndirect; }), Taken::broken);
    EXPECT_EQ(taken([](Guest& g) {
                  for (std::uint64_t i = 0; i < 8; ++i) {
                      g.at<PackedDescriptor>(16 * i) = {kHere, 1, 0, kPackedAvailable | kNext};
                  }
              }),
              Taken::broken)
        << "a chain without an end";
}

TEST(PackedRing, the_same_buffer_twice) {
    Guest guest(true, 8, false);
    const auto ring = guest.open();
    const auto id = guest.add(buffers(1));
    Chain chain;
    ASSERT_EQ(ring->take(chain), Taken::chain);
    guest.at<PackedDescriptor>(16) = {kHere, 1, *id, kPackedAvailable};
    EXPECT_EQ(ring->take(chain), Taken::broken);
}

// The records are the front end's memory too: what was checked may be something else when it is used.
TEST(PackedRing, records_that_change_while_they_are_used) {
    for (const bool recovered : {false, true}) {
        Guest guest(true, 8, false);
        constexpr std::size_t kWords = sizeof(PackedRecord) / 8;
        std::vector<std::uint64_t> memory(in_flight_bytes(true, 8) / 8 + 16 * kWords, 0);
        RingSetup setup = guest.setup();
        setup.in_flight = std::as_writable_bytes(std::span(memory)).first(in_flight_bytes(true, 8));
        auto ring = guest.open(setup);
        const auto id = guest.add(buffers(2));
        Chain chain;
        ASSERT_EQ(ring->take(chain), Taken::chain);
        if (recovered) ring = guest.open(setup);
        ASSERT_NE(ring, nullptr);
        auto* first = reinterpret_cast<PackedRecord*>(setup.in_flight.data() + sizeof(PackedRecords));
        first->last = 12;  // behind the records' end
        first->count = 100;
        first->id = 100;
        if (recovered) {
            ASSERT_EQ(ring->take(chain), Taken::chain);
        }
        EXPECT_EQ(chain.id, *id);
        EXPECT_EQ(chain.slots, 2);
        ring->put(chain, 0);
        ring->publish();
        ASSERT_EQ(guest.reap().size(), 1U);
        const auto behind = std::span(memory).subspan(in_flight_bytes(true, 8) / 8);
        EXPECT_TRUE(std::ranges::all_of(behind, [](std::uint64_t word) { return word == 0; }));
    }
}

// Whatever stands in the records of a former process: refused or survived.
TEST_P(Rings, records_full_of_nonsense) {
    Prng prng(7);
    for (int round = 0; round < 2000; ++round) {
        Guest guest(packed(), 8, event_index());
        std::vector<std::uint64_t> records(in_flight_bytes(packed(), 8) / 8);
        for (auto& one : records) one = prng.below(3) == 0 ? prng.next() : prng.below(8);
        const std::uint16_t head[] = {kRecordsVersion, 8};
        std::memcpy(reinterpret_cast<std::byte*>(records.data()) + 8, head, sizeof head);
        RingSetup setup = guest.setup();
        setup.in_flight = std::as_writable_bytes(std::span(records));
        const auto ring = guest.open(setup);
        if (ring == nullptr) continue;
        Chain chain;
        for (int i = 0; i < 20 && ring->take(chain) == Taken::chain; ++i) {
            ring->put(chain, 0);
            ring->publish();
        }
    }
}

}  // namespace
}  // namespace gemel::vhost
