// MigrationAgent: this node's part in live migrations, as their source and as their destination.
// docs/design/0011-live-migration.md has the steps, the races and why each edge exists. Only the source
// decides: it gives up (before the release) or releases and switches (once the guest runs at the
// destination).
//
//   source       opening --prepared--> copying --arrived, own domain does not run--> releasing
//                releasing --epoch refused here--> switching --committed--> (forgotten)
//                opening, copying --failed, cancelled, not possible any more--> (given up: forgotten)
//   destination  opening --front ends open--> gating --gate open, committed--> waiting --runs here--> telling
#pragma once

#include <map>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class MigrationAgent {
  public:
    static constexpr Duration kOpenPatience = seconds(30);    // for the destination to get ready
    static constexpr Duration kArrivePatience = seconds(15);  // once the domain is gone here
    static constexpr Duration kResumePatience = seconds(10);  // for libvirt to resume it after a failure
    static constexpr Duration kFinishPatience = seconds(10);  // for libvirt to end its call after the switch
    // For QEMU at the source to end by itself: without its disk's server it would ignore being asked to.
    static constexpr Duration kTidyPatience = seconds(1);
    static constexpr Duration kRepeat = milliseconds(200);

    MigrationAgent(Context& context, Peers& peers) : context_(context), peers_(peers) {}
    void evaluate();
    void arrived(const std::string& from, const GuestArrived& message);
    void progress(const MigrationProgress& progress);
    // libvirt still tidies up after this guest, which was switched away: its domain may be left to it.
    bool tidying(const GuestId& guest) const;
    // It is committed that the guest moves to this life of this node.
    bool to_here(const GuestRecord& guest) const;

  private:
    enum class SourceState : std::uint8_t { opening, copying, releasing, switching };
    struct Source {
        std::string secret;  // of the migration this is about
        SourceState state = SourceState::opening;
        Instant since;
        bool outstanding = false;  // libvirt has not answered yet
        bool busy = false;         // a commit or a release is under way
        std::string error;
        std::uint32_t downtime_ms = 0;
        Instant ended;  // when libvirt answered
        bool arrived = false;
        Instant repeat_at;
        int releasing = 0;
        bool switched = false;
        Instant switched_at;
        OperationId operation;
        Instant told_at;
        std::string told;
    };
    struct Destination {
        std::string secret;
        bool guarded = false;  // its guard knows that it came
        bool ran = false;      // it was seen to run here; the guard may have paused it since
        std::string address;
        bool busy = false;
        Instant repeat_at;
        Instant close_at = Instant::never();
    };

    bool mine(const GuestRecord& guest) const;
    bool in_tables(const std::string& name, const std::string& secret) const;
    bool source_ended(const std::string& name, Source& source);
    bool destination_ended(const std::string& name, Destination& destination);
    void forget_ended();
    void source(const std::string& name, const Row<GuestRecord>& row);
    void copying(const std::string& name, const Row<GuestRecord>& row, Source& source);
    void after_failure(const std::string& name, const Row<GuestRecord>& row, Source& source,
                       const std::string& reason);
    void start_copy(const std::string& name, const Row<GuestRecord>& row, Source& source);
    bool frozen(const GuestRecord& guest) const;
    std::string abort_reason(const GuestRecord& guest) const;
    void release(const std::string& name, const GuestRecord& guest, Source& source);
    void commit_switch(const std::string& name, const Row<GuestRecord>& row, Source& source);
    void tell_end(const Source& source);
    void give_up(const std::string& name, const Row<GuestRecord>& row, Source& source,
                 const std::string& reason);
    void finish_operation(const OperationId& operation, const std::string& error, std::uint32_t downtime_ms,
                          Txn& txn);
    void destination(const std::string& name, const Row<GuestRecord>& row);
    void guard_it(const GuestRecord& guest);
    void open_gate(const std::string& name, const GuestRecord& guest, Destination& destination);
    void commit_prepared(const std::string& name, const Row<GuestRecord>& row, Destination& destination);

    Context& context_;
    Peers& peers_;
    std::map<std::string, Source> sources_;
    std::map<std::string, Destination> destinations_;
};

}  // namespace gemel::cluster
