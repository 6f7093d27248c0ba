// GuestAgent: this node's part in its guests. Starts a domain only under a committed placement of this life,
// after looking for it by UUID (C1, L7); ends it when asked or when the placement is gone; gives leases back
// only when the domain is gone and blockd closed the front ends. One Run per guest that is placed or running
// here.
//
//   looking --domain list newer than the placement, blockd serves--> starting --ok--> running
//      |  \--a domain of this UUID with our front end: it runs already--> running   |  \--failed--> clearing
//      |  \--none, and an earlier process of clusterd may have started it in this epoch--> clearing
//      \--not served in kServeTimeout--> clearing                                   |
//   running --domain gone: crashed, or shut off by itself--> clearing <--domain gone-- stopping <--wish
//   stopped clearing --domain gone--> closing --front ends closed--> committing --committed--> (forgotten)
//   A guest that moves away is left to MigrationAgent while its migration is committed.
//   looking, running, stopping --a disk can never be served here again in this epoch--> clearing
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/migration_agent.hpp"

namespace gemel::cluster {

class GuestAgent {
  public:
    static constexpr Duration kServeTimeout = seconds(120);
    static constexpr Duration kStopRepeat = seconds(10);
    static constexpr Duration kAdoptGrace = seconds(10);
    static constexpr Duration kLeavePatience = seconds(60);
    static constexpr Duration kAttachGrace = seconds(10);     // of a replica that is out of the ack set
    static constexpr Duration kAttachPatience = seconds(60);  // of one that counts

    enum class State : std::uint8_t { looking, starting, running, stopping, clearing, closing, committing };

    GuestAgent(Context& context, const MigrationAgent& migrations)
        : context_(context), migrations_(migrations) {}
    void evaluate();
    // Nothing of this node's is placed or under way (clean leave).
    bool empty() const { return runs_.empty(); }
    // domains seen running here without a right to
    const std::map<GuestId, std::string>& intruders() const { return intruders_; }

  private:
    struct Run {
        State state = State::looking;
        PlacementRecord placement;
        Instant since;
        std::uint64_t lists_before = 0;  // lists up to this one do not show what it did: placed, or started
        Instant list_again;
        bool inherited = false;            // placed before this process looked: may have been started already
        std::optional<bool> regrant_told;  // what the guard was told last; nothing: not registered yet
        bool busy = false;                 // an action's answer is outstanding
        int closing = 0;                   // front ends not yet closed
        bool failed = false;               // counts as a restart
        bool shut_off = false;             // ended by itself, in order
        bool placement_lost = false;       // nothing to commit any more
        std::string error;
        Instant repeat_at;
        std::set<std::string> served;             // volumes that were seen served in this epoch
        std::optional<Instant> unattached_since;  // blockd is there, and has a volume of its not attached
    };

    bool listed_since(Run& run);  // asks for one while it is not so
    void adopt();
    void drop_intruders();
    void advance(const std::string& name, Run& run, bool& erase);
    void look(const std::string& name, const Row<GuestRecord>& row, Run& run);
    bool regrant_possible(const PlacementRecord& placement) const;
    void keep_guarded(const std::string& name, const GuestRecord& guest, Run& run);
    void start(const std::string& name, const Row<GuestRecord>& row, Run& run);
    void watch(const std::string& name, const Row<GuestRecord>& row, Run& run);
    void stop(const std::string& name, const Row<GuestRecord>& row, Run& run);
    void clear(const std::string& name, const GuestRecord& guest, Run& run);
    void close(const std::string& name, Run& run, bool& erase);
    void commit_cleared(const std::string& name);
    void commit_phase(const std::string& name, const Row<GuestRecord>& row, GuestPhase phase);
    void move(const std::string& name, Run& run, State to, const std::string& why);
    bool serving(const PlacementRecord& placement) const;
    bool lease_revoked(const PlacementRecord& placement) const;
    std::string disk_lost(Run& run) const;
    bool epoch_refused(const PlacementRecord& placement) const;
    bool cleared_for_its_disk(const std::string& name, Run& run);
    bool has_front_client(const PlacementRecord& placement) const;
    bool leaving() const;  // this node leaves cleanly: its guests end here and start elsewhere

    Context& context_;
    const MigrationAgent& migrations_;
    bool first_look_ = true;
    std::map<std::string, Run> runs_;
    std::map<GuestId, std::string> intruders_;
    std::map<GuestId, Instant> destroying_;
};

}  // namespace gemel::cluster
