// Two engines, two disks that lose and reorder what was not flushed, one link, one store; completions come in
// an order the seed decides. Small on purpose: the whole cluster with all its faults is simulated in sim/.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/checksum.hpp"
#include "base/prng.hpp"
#include "core/formats/format_replica.hpp"
#include "core/formats/layout.hpp"
#include "core/replication/engine.hpp"

namespace gemel::replication::harness {

inline constexpr std::uint64_t kVolumeBytes = 64ULL << 20;
using Sector = std::uint64_t;  // what a 512-byte sector holds: the number of the write that made it

template <typename T>
inline constexpr bool kIsMetadata = std::is_same_v<T, WriteMetadata>;

// One disk: metadata bytes and data stamps, each with what is stable and what is only completed.
class FakeDisk {
  public:
    std::map<std::uint64_t, std::vector<std::byte>> metadata, metadata_stable;
    std::map<std::uint64_t, Sector> data, data_stable;
    std::map<std::uint64_t, Sector> unflushed;  // completed, not yet covered by a flush
    bool fail_writes = false;
    bool fail_flushes = false;
    int fail_superblocks = 0;     // so many writes of one: each leaves its slot torn
    std::set<std::uint64_t> bad;  // sectors that cannot be read until they are written

    void tear(std::uint64_t offset, std::vector<std::byte> bytes) {
        std::ranges::fill(std::span(bytes).subspan(bytes.size() / 2), std::byte{0xee});
        metadata[offset] = metadata_stable[offset] = std::move(bytes);
    }
    bool readable(std::uint64_t offset, std::uint64_t length) const {
        const auto first = bad.lower_bound(offset / 512);
        return first == bad.end() || *first >= (offset + length) / 512;
    }
    void flush() {
        data_stable = data;
        metadata_stable = metadata;
        unflushed.clear();
    }
    void put(std::uint64_t sector, Sector value) {
        data[sector] = unflushed[sector] = value;
        bad.erase(sector);
    }
    void made_stable(const std::map<std::uint64_t, Sector>& covered) {
        for (const auto& [sector, value] : covered) {
            data_stable[sector] = value;
            const auto open = unflushed.find(sector);
            if (open != unflushed.end() && open->second == value) unflushed.erase(open);
        }
    }
    void cut_power(Prng& random) {
        for (const auto& [sector, value] : unflushed) {
            if (random.chance(1, 2)) continue;
            const auto kept = data_stable.find(sector);
            data[sector] = kept == data_stable.end() ? 0 : kept->second;
        }
        metadata = metadata_stable;
        for (const auto& [sector, value] : unflushed) data_stable[sector] = data[sector];
        unflushed.clear();
    }
    Sector read(std::uint64_t sector) const {
        const auto found = data.find(sector);
        return found == data.end() ? 0 : found->second;
    }
    std::vector<std::byte> read_metadata(std::uint64_t offset, std::uint32_t length) const {
        std::vector<std::byte> bytes(length);
        for (std::uint32_t at = 0; at < length; at += 4096) {
            const auto page = metadata.find(offset + at);
            if (page != metadata.end()) std::memcpy(bytes.data() + at, page->second.data(), 4096);
        }
        return bytes;
    }
};

class Pair;

struct Node {
    std::string name;
    ReplicaId replica;
    Incarnation incarnation;
    SessionId process;
    FakeDisk disk;
    std::unique_ptr<Engine> engine;
    std::map<PayloadHandle, std::vector<Sector>> payloads;
    std::uint64_t served = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> writing;  // data in flight
    std::vector<std::string> notices;
    std::optional<std::uint64_t> refused;
};

// A pending completion or delivery; run in any order the seed likes, except that a link keeps its order.
struct Event {
    int node = 0;
    SessionId process;
    std::function<void()> run;
};

class Pair {
  public:
    explicit Pair(std::uint64_t seed, bool second_blank = false) : random(seed) {
        volume = VolumeId::from_random(1, 1);
        cluster = ClusterId::from_random(2, 2);
        store.lineage = LineageId::from_random(3, 3);
        store.revision = 10;
        VolumeRecord& r = store.record;
        r.id = volume;
        r.name = "v";
        r.size_bytes = kVolumeBytes;
        r.generation = {GenerationId::from_random(4, 4), {}, 1};
        for (int i = 0; i < 2; ++i) {
            Node& n = nodes[static_cast<std::size_t>(i)];
            n.name = i == 0 ? "a" : "b";
            n.replica = ReplicaId::from_random(10 + static_cast<std::uint64_t>(i), 1);
            n.incarnation = {Uuid::from_random(random.next(), 1), Uuid::from_random(random.next(), 2)};
            const bool blank = second_blank && i == 1;
            r.replicas.push_back({n.name, n.replica, "default",
                                  blank ? ReplicaState::inconsistent : ReplicaState::up_to_date, !blank});
        }
        for (int i = 0; i < 2; ++i) format(i, second_blank && i == 1, second_blank);
    }

    Node& node(int i) { return nodes[static_cast<std::size_t>(i)]; }
    View view(int i) { return node(i).engine->view(); }

    void format(int i, bool blank, bool alone) {
        formats::FormatRequest request{cluster,
                                       volume,
                                       node(i).replica,
                                       kVolumeBytes,
                                       blank ? Generation{} : store.record.generation,
                                       alone ? ReplicaId{} : node(1 - i).replica};
        formats::format_replica(request, [&](std::uint64_t offset, std::span<const std::byte> page) {
            node(i).disk.metadata[offset].assign(page.begin(), page.end());
        });
        node(i).disk.flush();
    }

    void start(int i, bool same_incarnation = true) {
        Node& n = node(i);
        n.process = SessionId::from_random(random.next(), random.next());
        if (!same_incarnation) n.incarnation.nonce = Uuid::from_random(random.next(), random.next());
        EngineConfig config;
        config.node = n.name;
        config.cluster = cluster;
        config.volume = volume;
        config.replica = n.replica;
        config.incarnation = n.incarnation;
        config.process = n.process;
        config.outlived_io_possible = same_incarnation;
        config.max_requests = 64;
        config.active_extents = 32;
        config.intent_group = 1;
        config.random_seed = random.next();
        n.payloads.clear();
        n.writing.clear();
        n.engine = std::make_unique<Engine>(config);
        step(i, Tick{});
    }

    void step(int i, const Input& input) {
        if (!node(i).engine) return;
        Outputs out;
        node(i).engine->step(now, input, out);
        for (const Output& output : out) std::visit([&](const auto& o) { carry_out(i, o); }, output);
    }

    // ---- scheduling
    void later(int i, std::function<void()> run) { events.push_back({i, node(i).process, std::move(run)}); }
    // Runs everything that is pending, in random order, including what follows from it; time moves a little.
    void settle(Duration span = milliseconds(300)) {
        const Instant end = now + span;
        while (now < end) {
            for (int guard = 0; !events.empty() || !links[0].empty() || !links[1].empty(); ++guard) {
                ASSERT_LT(guard, 2000000) << "the pair does not come to rest";
                one();
            }
            now = now + milliseconds(20);
            for (int i = 0; i < 2; ++i) {
                if (!node(i).engine) continue;
                if (renew && store.record.owner && store.record.owner->node == node(i).name)
                    step(i, StoreRenewal{now, store});
                if (node(i).engine && node(i).engine->next_deadline() <= now) step(i, Tick{});
            }
        }
    }
    void one() {
        const std::size_t choices =
            events.size() + (links[0].empty() ? 0U : 1U) + (links[1].empty() ? 0U : 1U);
        std::size_t pick = random.below(choices);
        if (pick < events.size()) {
            Event event = std::move(events[pick]);
            events[pick] = std::move(events.back());
            events.pop_back();
            if (node(event.node).engine && node(event.node).process == event.process) event.run();
            return;
        }
        const int to = pick == events.size() && !links[0].empty() ? 0 : 1;
        auto delivery = std::move(links[static_cast<std::size_t>(to)].front());
        links[static_cast<std::size_t>(to)].pop_front();
        delivery();
    }

    // ---- link
    void connect() {
        disconnect();
        session = SessionId::from_random(random.next(), random.next());
        for (int i = 0; i < 2; ++i) {
            const Node& other = node(1 - i);
            step(i, PeerUp{session, other.name, other.replica, other.incarnation, other.process,
                           peers_serve_reads});
        }
    }
    void disconnect() {
        links[0].clear();
        links[1].clear();
        if (session.is_nil()) return;
        const SessionId old = session;
        session = SessionId{};
        step(0, PeerDown{old});
        step(1, PeerDown{old});
    }

    // ---- store
    void tell_all() {
        for (int i = 0; i < 2; ++i) {
            if (node(i).engine) step(i, CommittedRecordIn{store});
        }
    }
    void grant(int i) {
        ++store.revision;
        ++store.record.epoch;
        store.record.owner =
            OwnerRecord{node(i).name, node(i).incarnation, store.record.epoch, "secret", false, "test"};
        tell_all();
        if (renew) step(i, StoreRenewal{now, store});
    }
    void promote_alone(int i) {  // what the coordinator commits after the other one is fenced
        VolumeRecord& r = store.record;
        r.ancestors.insert(r.ancestors.begin(), r.generation.id);
        r.generation = {GenerationId::from_random(random.next(), random.next()), r.generation.id,
                        r.generation.counter + 1};
        for (auto& replica : r.replicas) {
            replica.in_ack_set = replica.node == node(i).name;
            if (!replica.in_ack_set) replica.state = ReplicaState::outdated;
        }
        grant(i);
    }
    bool both_in_ack_set() const {
        return store.record.replicas[0].in_ack_set && store.record.replicas[1].in_ack_set;
    }

    // ---- guest
    std::uint64_t request(int i, FrontOperation operation, std::uint64_t sector, std::uint32_t sectors,
                          bool fua = false, std::uint64_t epoch = 0) {
        FrontRequest r;
        r.tag = ++last_tag;
        r.epoch = epoch == 0 ? store.record.epoch : epoch;
        r.operation = operation;
        r.offset = sector * 512;
        r.length = sectors * 512;
        r.fua = fua;
        if (operation == FrontOperation::write || operation == FrontOperation::read) {
            r.payload = static_cast<PayloadHandle>(r.tag);
            node(i).payloads[r.payload].assign(sectors, operation == FrontOperation::write ? r.tag : 0);
        }
        step(i, r);
        return r.tag;
    }
    std::uint64_t write(int i, std::uint64_t sector, std::uint32_t sectors = 8, bool fua = false) {
        return request(i, FrontOperation::write, sector, sectors, fua);
    }
    bool done(std::uint64_t tag) const {
        return completed.contains(tag) && completed.at(tag) == IoStatus::ok;
    }
    bool ended(std::uint64_t tag) const { return completed.contains(tag); }

    void kill(int i) {
        node(i).engine.reset();
        node(i).served = 0;
        std::erase_if(events, [&](const Event& e) { return e.node == i; });
    }
    void cut_power(int i) {
        kill(i);
        node(i).disk.cut_power(random);
    }
    bool equal() const {
        std::set<std::uint64_t> sectors;
        for (const auto& n : nodes) {
            for (const auto& [sector, value] : n.disk.data) sectors.insert(sector);
        }
        return std::ranges::all_of(
            sectors, [&](std::uint64_t s) { return nodes[0].disk.read(s) == nodes[1].disk.read(s); });
    }

    // ---- outputs
    IoStatus write_status(int i) { return node(i).disk.fail_writes ? IoStatus::io_error : IoStatus::ok; }
    void carry_out(int i, const DiskRead& o) {
        later(i, [this, i, o] {
            fill(i, o.payload, o.offset, o.length);
            const bool ok = node(i).disk.readable(o.offset, o.length);
            step(i, DiskDone{o.tag, ok ? IoStatus::ok : IoStatus::io_error});
        });
    }
    void fill(int i, PayloadHandle payload, std::uint64_t offset, std::uint32_t length) {
        auto& into = node(i).payloads[payload];
        into.resize(length / 512);
        for (std::uint32_t s = 0; s < length / 512; ++s) into[s] = node(i).disk.read(offset / 512 + s);
    }
    void carry_out(int i, const DiskFetch& o) {
        later(i, [this, i, o] {
            if (!node(i).disk.readable(o.offset, o.length)) {
                step(i, FetchDone{o.tag, IoStatus::io_error, kNoPayload});
                return;
            }
            const PayloadHandle handle = 2000000 + next_handle++;
            fill(i, handle, o.offset, o.length);
            step(i, FetchDone{o.tag, IoStatus::ok, handle});
        });
    }
    void carry_out(int i, const DiskWrite& o) {
        const auto data = node(i).payloads.at(o.payload);
        auto& writing = node(i).writing;
        const bool overlaps = std::ranges::any_of(writing, [&](const auto& other) {
            return o.offset < other.first + other.second && other.first < o.offset + o.length;
        });
        EXPECT_FALSE(overlaps) << "two overlapping writes in flight on one device (D5)";
        const std::pair<std::uint64_t, std::uint64_t> range{o.offset, o.length};
        writing.push_back(range);
        later(i, [this, i, o, data, range] {
            node(i).writing.erase(std::ranges::find(node(i).writing, range));
            if (write_status(i) == IoStatus::ok) {
                for (std::uint32_t s = 0; s < o.length / 512; ++s)
                    node(i).disk.put(o.offset / 512 + s, data.at(s));
                for (std::uint32_t s = 0; o.stable && s < o.length / 512; ++s)
                    node(i).disk.made_stable({{o.offset / 512 + s, data.at(s)}});
            }
            step(i, DiskDone{o.tag, write_status(i)});
        });
    }
    void carry_out(int i, const DiskZero& o) {
        later(i, [this, i, o] {
            auto& data = node(i).disk.data;
            for (auto at = data.lower_bound(o.offset / 512);
                 at != data.end() && at->first < (o.offset + o.length) / 512; ++at) {
                at->second = node(i).disk.unflushed[at->first] = 0;
            }
            step(i, DiskDone{o.tag, write_status(i)});
        });
    }
    void carry_out(int i, const DiskFlush& o) {
        const auto covered = node(i).disk.unflushed;
        later(i, [this, i, o, covered] {
            if (node(i).disk.fail_flushes) {
                step(i, DiskDone{o.tag, IoStatus::io_error});
                return;
            }
            node(i).disk.made_stable(covered);
            step(i, DiskDone{o.tag, IoStatus::ok});
        });
    }
    void carry_out(int i, const DiskHash& o) {
        later(i, [this, i, o] {
            std::vector<Sector> values;
            for (std::uint32_t s = 0; s < o.length / 512; ++s)
                values.push_back(node(i).disk.read(o.offset / 512 + s));
            const Hash128 hash = hash128(std::as_bytes(std::span(values)));
            const bool ok = node(i).disk.readable(o.offset, o.length);
            step(i, HashDone{o.tag, ok ? IoStatus::ok : IoStatus::io_error, hash.high, hash.low});
        });
    }
    void carry_out(int i, const ReadMetadata& o) {
        later(i, [this, i, o] {
            const auto bytes = node(i).disk.read_metadata(o.offset, o.length);
            step(i, MetadataRead{o.tag, IoStatus::ok, bytes});
        });
    }
    void carry_out(int i, const WriteMetadata& o) {
        const std::vector<std::byte> bytes(o.bytes.begin(), o.bytes.end());
        later(i, [this, i, o, bytes] {
            EXPECT_TRUE(std::ranges::equal(bytes, o.bytes)) << "metadata changed while it was being written";
            const bool superblock = o.offset == formats::kSuperblockA || o.offset == formats::kSuperblockB;
            if (superblock && node(i).disk.fail_superblocks > 0) {
                --node(i).disk.fail_superblocks;
                node(i).disk.tear(o.offset, bytes);
                step(i, DiskDone{o.tag, IoStatus::io_error});
                return;
            }
            node(i).disk.metadata[o.offset] = bytes;
            node(i).disk.metadata_stable[o.offset] = bytes;
            step(i, DiskDone{o.tag, write_status(i)});
        });
    }
    void carry_out(int i, const PeerSend& o) {
        std::vector<Sector> data;
        if (o.payload != kNoPayload) data = node(i).payloads.at(o.payload);
        if (o.last_use) node(i).payloads.erase(o.payload);
        if (o.session != session) return;
        const int to = 1 - i;
        const SessionId process = node(to).process;
        links[static_cast<std::size_t>(to)].push_back([this, to, o, data, process] {
            if (o.session != session || node(to).process != process) return;
            PayloadHandle handle = kNoPayload;
            if (o.payload != kNoPayload) {
                handle = 2000000 + next_handle++;
                node(to).payloads[handle] = data;
            }
            step(to, PeerMessageIn{o.session, o.message, handle});
        });
    }
    void carry_out(int i, const PeerDrop& o) {
        node(i).notices.push_back("drop: " + o.reason);
        if (o.session != session) return;
        later(i, [this, o] {
            if (o.session != session) return;
            disconnect();
            if (!o.stay_away && node(0).engine && node(1).engine) connect();
        });
    }
    void carry_out(int i, const FrontComplete& o) {
        EXPECT_FALSE(completed.contains(o.tag)) << "a request is answered once";
        completed[o.tag] = o.status;
        if (o.data_from == kNoPayload) return;
        node(i).payloads[static_cast<PayloadHandle>(o.tag)] = node(i).payloads.at(o.data_from);
        EXPECT_EQ(node(i).payloads.erase(o.data_from), 1U);
    }
    void carry_out(int i, const ServeFront& o) { node(i).served = o.epoch; }
    void carry_out(int i, const StopFront&) { node(i).served = 0; }
    void carry_out(int i, const ReleasePayload& o) { EXPECT_EQ(node(i).payloads.erase(o.payload), 1U); }
    void carry_out(int i, const Propose& o) {
        proposals.push_back(o);
        if (!store_writable) {
            later(i, [this, i, o] { step(i, ProposalDone{o.proposal, ProposalOutcome::refused, store}); });
            return;
        }
        later(i, [this, i, o] {
            const bool fits = o.expected_revision == store.revision && o.expected_lineage == store.lineage;
            if (fits) {
                store.record = o.next;
                ++store.revision;
            }
            step(i, ProposalDone{o.proposal, fits ? ProposalOutcome::committed : ProposalOutcome::refused,
                                 store});
            later(1 - i, [this, i] { step(1 - i, CommittedRecordIn{store}); });
        });
    }
    void carry_out(int i, const NeedRecord&) {
        later(i, [this, i] { step(i, CommittedRecordIn{store}); });
    }
    void carry_out(int i, const EpochRefused& o) { node(i).refused = o.epoch; }
    void carry_out(int, const LeaseExtended&) {}
    void carry_out(int i, const Notice& o) { node(i).notices.push_back(o.text); }

    Prng random;
    VolumeId volume;
    ClusterId cluster;
    CommittedVolume store;
    bool store_writable = true;
    bool peers_serve_reads = true;
    bool renew = true;  // the owner's clusterd reads the store
    std::array<Node, 2> nodes;
    std::vector<Event> events;
    std::array<std::deque<std::function<void()>>, 2> links;  // to node 0, to node 1
    SessionId session;
    Instant now{1};
    std::uint64_t last_tag = 0;
    std::uint32_t next_handle = 0;
    std::map<std::uint64_t, IoStatus> completed;
    std::vector<Propose> proposals;
};

// Both up, a serves.
inline std::unique_ptr<Pair> healthy(std::uint64_t seed) {
    auto pair = std::make_unique<Pair>(seed);
    pair->start(0);
    pair->start(1);
    pair->settle();
    pair->tell_all();
    pair->connect();
    pair->settle();
    pair->grant(0);
    pair->settle();
    return pair;
}

}  // namespace gemel::replication::harness
