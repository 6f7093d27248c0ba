// What the control plane's stories in virtual time begin with and look at: one guest, web1, on node1. Not in
// it: the world itself (world.hpp).
#pragma once

#include <gtest/gtest.h>

#include "core/ha/tests/world.hpp"

namespace gemel::ha::testing {

inline FenceSet bmc(const std::string& node) {
    FenceDeviceRecord device;
    device.name = "bmc-" + node;
    device.node = node;
    device.agent = "fence_ipmilan";
    device.timeout_ms = 5000;
    return {device};
}

// With one disk, a volume of its name; not started.
inline void define_guest(World& world, const std::string& name, std::uint64_t memory_bytes) {
    VolumeCreate volume;
    volume.name = name;
    volume.size_bytes = 1 << 20;
    auto made = world.ask("node1", volume);
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_EQ(made->state, OperationState::succeeded) << made->error;
    GuestCreate guest;
    guest.name = name;
    guest.memory_bytes = memory_bytes;
    guest.vcpus = 1;
    guest.disks = {{"vda", name}};
    made = world.ask("node1", guest);
    ASSERT_TRUE(made) << made.error().message;
}

// A cluster that works, with one volume and one guest that runs on node1.
inline void prepare(World& world, bool fence = true) {
    ASSERT_TRUE(world.until(seconds(30),
                            [&] {
                                return world.node("node1").is_acting() && world.node("node2").is_acting() &&
                                       (world.node("node1").is_coordinator() ||
                                        world.node("node2").is_coordinator());
                            }))
        << world.host("node1").log.back() << " / " << world.host("node2").log.back();
    if (fence) {
        for (const char* name : {"node1", "node2"}) {
            const auto set = world.ask("node1", bmc(name));
            ASSERT_TRUE(set) << set.error().message;
            ASSERT_EQ(set->state, OperationState::succeeded) << set->error;
        }
    }
    ASSERT_NO_FATAL_FAILURE(define_guest(world, "web1", 1 << 30));
    const auto made = world.ask("node1", GuestStart{"web1", "node1"});
    ASSERT_TRUE(made) << made.error().message;
    ASSERT_EQ(made->state, OperationState::succeeded) << made->error << made->step;
    ASSERT_EQ(world.runners("web1"), std::vector<std::string>{"node1"});
    // The first half second tells how much the store knows: both replicas in the ack set.
    world.run(seconds(2));
}

inline bool runs_only_on(World& world, const std::string& node) {
    return world.runners("web1") == std::vector<std::string>{node};
}
inline std::vector<std::string> acks(World& world, const std::string& seen_by) {
    std::vector<std::string> names;
    const auto& volumes = world.tables(seen_by).volumes;
    if (!volumes.contains("web1")) return {};
    for (const auto& replica : volumes.at("web1").record.replicas) {
        if (replica.in_ack_set) names.push_back(replica.node);
    }
    return names;
}

}  // namespace gemel::ha::testing
