// The one port through which the node's machine calls the HA planner (core/ha/planner.hpp), which lies in a
// room above. A plan is a list of steps; each step is one transaction's worth of decision or one action. The
// planner sees committed tables and facts only; guarding (revisions, lineage, term) is the caller's, from
// `reads`.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/instant.hpp"
#include "core/cluster/store.hpp"

namespace gemel::cluster {

// What the coordinator observes about a node, tagged with the life it was observed of.
struct NodeFacts {
    Incarnation incarnation;       // life last heard of; nil: never
    bool alive = false;            // heard on some path within the suspicion time, as that life
    bool acting = false;           // says it has rejoined
    bool answers = false;          // daemons, blockd or its store member answer on any path
    Instant lost_since;            // when the last sign of life was; meaningful while not alive
    bool release_refused = false;  // it was asked to release and refused, or did not answer in time
};

struct PlanInput {
    const Tables* tables = nullptr;
    std::map<std::string, NodeFacts> nodes;  // this one included
    std::string self;
    Instant now;
    bool quorate_with_majority = true;  // the store itself answers; never false when the planner is called
    std::map<std::string, Instant> retry_not_before;        // guest -> back-off, the coordinator's memory
    std::map<std::string, Instant> fence_retry_not_before;  // node -> back-off
    std::uint64_t random_high = 0;                          // for secrets and generation ids of this plan
    std::uint64_t random_low = 0;
};

// Grant all volumes of a guest on one node, in one transaction, with the placement.
struct GrantGuest {
    std::string guest;
    std::string node;
    bool after_host_loss = false;
};
// Give up a placement whose node is proven gone, or whose guest need not run any more; leases end with it.
struct ReleaseGuest {
    std::string guest;
    std::string reason;
};
// A lone volume (export) whose owner is proven gone.
struct ReleaseVolume {
    std::string volume;
    std::string reason;
};
// Commit the intent to fence this life; the agent runs after it.
struct RequestFence {
    std::string node;
    Incarnation incarnation;
};
// Ask a node that still answers to release before it is fenced.
struct AskNode {
    std::string node;
    Incarnation incarnation;
};
// Run the agent: the request is committed.
struct RunFence {
    std::string node;
    Incarnation incarnation;
    std::string device;
};
// Commit power_on_done, then power the victim on, once.
struct PowerOnVictim {
    std::string node;
    std::string device;
};
struct Blocked {         // nothing can be done now; why, for status and explain
    std::string object;  // "vm/web1"
    std::string why;
    bool until_operator = false;  // it does not pass by itself
};

using PlanStep = std::variant<GrantGuest, ReleaseGuest, ReleaseVolume, RequestFence, AskNode, RunFence,
                              PowerOnVictim, Blocked>;
using Plan = std::vector<PlanStep>;
using PlanFunction = Plan (*)(const PlanInput& input);

}  // namespace gemel::cluster
