// StableBeforeChecker: the edges "A is stable before B" that a promise names and whose breach would need a
// second, later fault to do harm. Looks at every output of every engine before it is carried out and compares
// with the disks, never with what an engine believes:
//   D3   a data write begins only where it is tracked, tracking ends only where both copies are equal
//   D10  a target says that it is ready only when Inconsistent is stable
//   D13  a peer acknowledges nothing of an epoch it has durably refused or outgrown; a new owner's first
//   answer
//        comes after its epoch is stable
//   D2   alone means: the generation in which the peer left is stable here
//   D7   resync data is sent only under a committed record that names the source alone
//   C2   a refusal is answered when it is stable; nothing is answered after t_send(last renewal) + L
//   H37  a join is proposed when both have written it; every leave makes a new generation
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/replication/interface.hpp"
#include "sim/checkers/tracking.hpp"
#include "sim/world/disk.hpp"

namespace gemel::sim {

// Sees what goes into an engine and what comes out, before it is carried out. `local` is the host's clock.
class EngineWatch {
  public:
    virtual void engine_starts(std::uint32_t node) = 0;
    virtual void sees_input(std::uint32_t node, Instant local, const replication::Input& input) = 0;
    virtual void sees_output(std::uint32_t node, Instant local, const replication::Output& output) = 0;

  protected:
    ~EngineWatch() = default;
};

struct Breach {
    std::string promise;  // empty: none
    std::string what;
};

class StableBeforeChecker {
  public:
    StableBeforeChecker(TrackingChecker& tracking, Duration lease);

    void engine_starts(std::uint32_t node) { sides_[node] = Side{}; }
    Breach input(std::uint32_t node, Instant local, const replication::Input& input);
    Breach output(std::uint32_t node, Instant local, const replication::Output& output);
    // an owner's answer to its guest; reads need no permission to be alone (D2)
    Breach acknowledged(std::uint32_t node, std::uint64_t epoch, bool read);

  private:
    struct Side {             // one process life
        Instant renewed{-1};  // no renewal was sent later than that
        bool renewed_ever = false;
        bool failed = false;  // its disk keeps nothing any more, and it serves nothing
        // Its replica was attached. A process that never did serves and acknowledges nothing, and may give
        // back its own life's epoch without storing that: a later process would need a renewal of it, which
        // the record that follows forbids. So may one whose replica is out of the ack set: nobody waits for
        // it. A survivor that counts must store it: another owner's lease ends by that (C2; seed 41071).
        bool attached = false;
        bool counts = true;
        std::uint64_t own_epoch = 0;
        // the newest record it was told, when that says that it is alone: its generation
        std::optional<std::uint64_t> alone_in;
        LineageId lineage;
        std::uint64_t revision = 0;
        std::vector<LineageId> former_lineages;
        std::set<std::pair<SessionId, std::uint64_t>> refused;  // requests that came under an ended epoch
    };
    void told(std::uint32_t node, const CommittedVolume& committed);
    void peer_input(std::uint32_t node, Instant local, const replication::PeerMessageIn& in);
    Breach peer_output(std::uint32_t node, const replication::PeerSend& send);
    Breach proposal(std::uint32_t node, const replication::Propose& propose);
    Breach tracked(const std::string& what) const;

    TrackingChecker& tracking_;
    Duration lease_;
    std::array<Side, 2> sides_;
};

}  // namespace gemel::sim
