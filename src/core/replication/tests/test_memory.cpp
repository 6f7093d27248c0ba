// A limit on everything: 4 MiB for a volume of 100 GiB, and no allocation for a request once the engine is
// warm.
#include <cstdlib>
#include <map>
#include <new>

#include <gtest/gtest.h>

#include "core/formats/format_replica.hpp"
#include "core/replication/engine.hpp"

namespace {
std::size_t allocations = 0;
std::size_t live_bytes = 0;

void* counted(std::size_t size, std::size_t alignment) {
    const std::size_t head = std::max<std::size_t>(alignment, 64);
    auto* block = static_cast<char*>(std::aligned_alloc(head, (size + 2 * head - 1) / head * head));
    if (block == nullptr) throw std::bad_alloc();
    ++allocations;
    live_bytes += size;
    *reinterpret_cast<std::size_t*>(block) = size;
    return block + head;
}
void uncounted(void* pointer, std::size_t alignment) {
    if (pointer == nullptr) return;
    auto* block = static_cast<char*>(pointer) - std::max<std::size_t>(alignment, 64);
    live_bytes -= *reinterpret_cast<std::size_t*>(block);
    std::free(block);
}
}  // namespace

void* operator new(std::size_t size) {
    return counted(size, 64);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* pointer) noexcept {
    uncounted(pointer, 64);
}
void operator delete(void* pointer, std::size_t) noexcept {
    uncounted(pointer, 64);
}
void operator delete(void* pointer, std::align_val_t alignment) noexcept {
    uncounted(pointer, static_cast<std::size_t>(alignment));
}
void operator delete(void* pointer, std::size_t, std::align_val_t alignment) noexcept {
    uncounted(pointer, static_cast<std::size_t>(alignment));
}

namespace gemel::replication {
namespace {

// One replica, one engine, every operation succeeds at once.
class Single {
  public:
    explicit Single(std::uint64_t size) {
        record.lineage = LineageId::from_random(1, 1);
        record.revision = 3;
        VolumeRecord& r = record.record;
        r.id = VolumeId::from_random(2, 2);
        r.size_bytes = size;
        r.generation = {GenerationId::from_random(3, 3), {}, 1};
        r.replicas = {{"a", ReplicaId::from_random(4, 4), "", ReplicaState::up_to_date, true}};
        r.owner = OwnerRecord{"a", {}, 1, "", false, ""};
        r.epoch = 1;
        formats::format_replica({ClusterId{}, r.id, r.replicas[0].replica, size, r.generation, {}},
                                [&](std::uint64_t at, std::span<const std::byte> page) {
                                    pages[at].assign(page.begin(), page.end());
                                });
        config.node = "a";
        config.volume = r.id;
        config.replica = r.replicas[0].replica;
    }
    void start() {
        engine = std::make_unique<Engine>(config);
        step(Tick{});
        step(CommittedRecordIn{record});
        step(StoreRenewal{now, record});
    }
    void step(const Input& input) {
        engine->step(now, input, outputs);
        while (!outputs.empty()) {
            work.swap(outputs);
            outputs.clear();
            for (const Output& output : work) answer(output);
            work.clear();
        }
    }
    void answer(const Output& output) {
        if (const auto* read = std::get_if<ReadMetadata>(&output)) {
            buffer.assign(read->length, std::byte{0});
            for (std::uint32_t at = 0; at < read->length; at += 4096) {
                const auto page = pages.find(read->offset + at);
                if (page != pages.end())
                    std::copy(page->second.begin(), page->second.end(), buffer.begin() + at);
            }
            engine->step(now, MetadataRead{read->tag, IoStatus::ok, buffer}, outputs);
        } else if (const auto* metadata = std::get_if<WriteMetadata>(&output)) {
            engine->step(now, DiskDone{metadata->tag}, outputs);
        } else if (const auto* write = std::get_if<DiskWrite>(&output)) {
            engine->step(now, DiskDone{write->tag}, outputs);
        } else if (const auto* data = std::get_if<DiskRead>(&output)) {
            engine->step(now, DiskDone{data->tag}, outputs);
        } else if (const auto* flush = std::get_if<DiskFlush>(&output)) {
            engine->step(now, DiskDone{flush->tag}, outputs);
        } else if (std::holds_alternative<FrontComplete>(output)) {
            ++completed;
        }
    }
    CommittedVolume record;
    EngineConfig config;
    std::map<std::uint64_t, std::vector<std::byte>> pages;
    std::unique_ptr<Engine> engine;
    Outputs outputs, work;
    std::vector<std::byte> buffer;
    Instant now{1};
    int completed = 0;
};

TEST(Memory, a_volume_of_100_gib_needs_at_most_4_mib) {
    Single single(100ULL << 30);
    single.outputs.reserve(64);
    single.work.reserve(64);
    single.buffer.reserve(1 << 20);
    const std::size_t before = live_bytes;
    single.start();
    EXPECT_TRUE(single.engine->view().attached);
    EXPECT_LE(live_bytes - before, 4U << 20);
}

TEST(Memory, a_warm_engine_allocates_nothing_for_a_request) {
    Single single(1ULL << 30);
    single.start();
    ASSERT_EQ(single.engine->view().role, Role::primary);
    const auto round = [&](std::uint64_t base) {
        for (std::uint64_t i = 0; i < 200; ++i) {
            const std::uint64_t at = (base + i * 5) % 250 * (4U << 20);
            single.step(FrontRequest{i, 1, FrontOperation::write, at, 4096, i % 16 == 0, 1});
            single.step(FrontRequest{i, 1, FrontOperation::read, at, 4096, false, 1});
        }
        single.step(FrontRequest{1, 1, FrontOperation::flush, 0, 0, false, kNoPayload});
    };
    round(0);
    const std::size_t before = allocations;
    round(3);
    EXPECT_EQ(allocations - before, 0U);
    EXPECT_EQ(single.completed, 802);
}

}  // namespace
}  // namespace gemel::replication
