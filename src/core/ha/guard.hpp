// Guard: the last line of promise C1, independent of clusterd. It knows, for each guest of this node, the
// leases its disks need and until when each lasts (told by blockd), and decides: freeze (pause and take the
// network down) when one ran out, thaw when all are fresh again, kill on a committed loss of ownership or
// before another node could be granted. What it cannot verify stops the feeding of the watchdog. Pure:
// step(now, input, outputs), next_deadline().
//
//   allowed --a lease ran out--> freezing --paused--> frozen --all leases fresh--> thawing --running-->
//   allowed
//      |                            |                   |  \--kill_at passed (regrant possible)--> killing
//      |                            \--not verified in time--> killing
//      \--ownership lost (committed)--> killing --not verified in time--> killing, watchdog unfed
//   any --gone--> allowed, unwatched until it is seen again: under the leases it is then registered for
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/instant.hpp"

namespace gemel::ha {

struct GuardConfig {
    Duration lease = seconds(10);
    Duration verify = seconds(2);      // a pause or a kill must be verified within this
    Duration kill_after = seconds(5);  // after the lease's end, where another node could be granted
    Duration arrival = seconds(3);     // a guest that moved here runs before its lease does
};

enum class GuardState : std::uint8_t { allowed, freezing, frozen, thawing, killing };
std::string_view to_string(GuardState state);

// ---- inputs ----
struct GuardTick {};
struct GuardVolume {
    VolumeId volume;
    std::uint64_t epoch = 0;
    bool operator==(const GuardVolume&) const = default;
};
struct Register {  // again for the same guest: replaces its volumes
    GuestId guest;
    std::string name;
    std::vector<GuardVolume> volumes;
    bool regrant_possible = false;  // another node could be granted while this one is cut off
    bool incoming = false;          // it moves here while it runs (0011); its lease follows it
};
struct LeaseUntil {  // blockd's LeaseExtended
    VolumeId volume;
    std::uint64_t epoch = 0;
    Instant until;
};
struct OwnershipLost {  // committed: this epoch of the volume is over; kill its guests now
    VolumeId volume;
    std::uint64_t epoch = 0;
};
struct KillAt {  // another node could be granted from then on: kill before (never: taken back)
    VolumeId volume;
    std::uint64_t epoch = 0;
    Instant at = Instant::never();
};
struct Forget {  // the domain is gone and its leases are given back
    GuestId guest;
};
enum class SeenDomain : std::uint8_t { running, paused, gone };
struct DomainSeen {  // what libvirt or /proc says, after an action and whenever it changes
    GuestId guest;
    SeenDomain seen = SeenDomain::running;
};
using GuardInput = std::variant<GuardTick, Register, LeaseUntil, OwnershipLost, KillAt, Forget, DomainSeen>;

// ---- outputs ----
struct FreezeDomain {  // pause the vCPUs, take the network interface down; then DomainSeen
    GuestId guest;
    std::string name;
    std::string reason;
};
struct ThawDomain {
    GuestId guest;
    std::string name;
};
struct KillDomain {
    GuestId guest;
    std::string name;
    std::string reason;
};
struct FeedWatchdog {  // emitted when it changes: false = stop feeding, the host resets itself
    bool feed = true;
    std::string reason;
};
struct GuardLog {
    std::string text;
};
using GuardOutput = std::variant<FreezeDomain, ThawDomain, KillDomain, FeedWatchdog, GuardLog>;
using GuardOutputs = std::vector<GuardOutput>;

struct GuardView {
    GuestId guest;
    std::string name;
    GuardState state = GuardState::allowed;
    Instant until;  // earliest end of its leases
};

class Guard {
  public:
    explicit Guard(GuardConfig config) : config_(config) {}
    void step(Instant now, const GuardInput& input, GuardOutputs& outputs);
    Instant next_deadline() const;
    std::vector<GuardView> view() const;

  private:
    struct Entry {
        std::string name;
        std::vector<GuardVolume> volumes;
        bool regrant_possible = false;
        GuardState state = GuardState::allowed;
        SeenDomain seen = SeenDomain::gone;
        bool ever_seen = false;
        bool incoming = false;
        Instant arrived = Instant::never();  // first seen running, of one that is incoming
        Instant since;                       // of the state
        std::string reason;
    };
    Instant lease_end(const Entry& entry) const;
    Instant kill_at(const Entry& entry) const;
    bool lost(const Entry& entry) const;
    void move(Instant now, const GuestId& id, Entry& entry, GuardState to, const std::string& reason,
              GuardOutputs& outputs);
    void evaluate(Instant now, const GuestId& id, Entry& entry, GuardOutputs& outputs);
    void feed(bool wanted, const std::string& reason, GuardOutputs& outputs);

    GuardConfig config_;
    std::map<GuestId, Entry> guests_;
    std::map<std::pair<VolumeId, std::uint64_t>, Instant> leases_;
    std::map<std::pair<VolumeId, std::uint64_t>, Instant> kill_at_;
    std::set<std::pair<VolumeId, std::uint64_t>> lost_;
    bool feeding_ = true;
};

}  // namespace gemel::ha
