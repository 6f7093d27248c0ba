// What an operator can ask of the cluster, already parsed: the commands behind api/openapi.yaml. Names and
// ranges are checked again here (validate), so that a client of the machine cannot skip it. Reading is not
// here: view.hpp.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.hpp"
#include "core/formats/records.hpp"

namespace gemel::cluster {

struct StartAlone {
    std::string confirm_name;  // the cluster's
    bool accept_loss = false;
};
struct ConfirmDown {
    std::string node;
    std::string confirm_name;
};
// A clean leave of the node that is asked; only by itself.
struct NodeLeave {
    std::string node;
    std::string confirm_name;
};
struct VolumeCreate {
    std::string name;
    std::uint64_t size_bytes = 0;
    std::string pool = "default";
    AckMode ack_mode = AckMode::writeback;
    std::vector<std::string> nodes;  // empty: all nodes
};
struct VolumeDelete {
    std::string name;
    std::string confirm_name;
};
struct VolumeExport {
    std::string name;
    bool read_only = false;
};
struct VolumeUnexport {
    std::string name;
};
struct VolumeForceUpToDate {
    std::string name;
    std::string node;
    std::string confirm_name;
};
struct VolumeResolve {
    std::string name;
    std::string keep;
    std::string confirm_name;
};
struct GuestCreate {
    std::string name;
    GuestId uuid;  // nil: made here
    std::string template_text;
    std::uint64_t memory_bytes = 0;
    std::uint32_t vcpus = 0;
    std::vector<GuestDisk> disks;
    std::vector<GuestNic> nics;
    std::uint32_t priority = 100;
    std::string preferred_node;
};
struct GuestDelete {
    std::string name;
    std::string confirm_name;
    bool with_volumes = false;
};
struct GuestStart {
    std::string name;
    std::string node;  // empty: the planner chooses
};
struct GuestStop {
    std::string name;
    bool power_off = false;
    std::uint32_t timeout_ms = 120000;
};
// Live, to the node that holds the other copy of its disks.
struct GuestMigrate {
    std::string name;
    std::string node;                   // empty: the one node that can take it
    std::uint64_t bandwidth_bytes = 0;  // a second; 0: as fast as the link
    std::uint32_t downtime_ms = 300;    // the pause to aim at
    bool auto_converge = true;
};
struct GuestMigrateCancel {
    std::string name;
};
// Guests move away, one after the other, and none is placed there until it is undrained.
struct NodeDrain {
    std::string node;
};
struct NodeUndrain {
    std::string node;
};
struct FenceSet {
    FenceDeviceRecord device;
};
struct FenceTest {
    std::string name;
};

using ApiCommand =
    std::variant<StartAlone, ConfirmDown, NodeLeave, VolumeCreate, VolumeDelete, VolumeExport, VolumeUnexport,
                 VolumeForceUpToDate, VolumeResolve, GuestCreate, GuestDelete, GuestStart, GuestStop,
                 GuestMigrate, GuestMigrateCancel, NodeDrain, NodeUndrain, FenceSet, FenceTest>;

std::string_view kind_of(const ApiCommand& command);  // "volume.create"
std::string object_of(const ApiCommand& command);     // "volume/web1"
Status validate(const ApiCommand& command);

}  // namespace gemel::cluster
