// Coordinator: what only the elected node does: asks the planner, turns its steps into transactions that
// compare what the plan read and the term, runs fence agents for committed requests, waits out the bound
// after a confirm-down. The plan is made anew at each change; a step that did not land is simply planned
// again (design brief 6; C3, C4, H11).
#pragma once

#include <map>
#include <set>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/election.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Coordinator {
  public:
    Coordinator(Context& context, Peers& peers, Election& election)
        : context_(context), peers_(peers), election_(election) {}
    void evaluate();
    void answered(const std::string& from, const ReleaseAnswer& answer);
    // The operator vouches; may_confirm_down() was asked by the caller. Goes on in evaluate().
    void confirm_down(const std::string& node);
    PlanInput plan_input();
    void back_off();

    struct Waiting {  // a confirm-down on its way
        Incarnation incarnation;
        bool revoked = false;
        Instant revoked_at;
        Instant until;
    };
    const std::map<std::string, Waiting>& waiting() const { return waiting_; }

  private:
    struct Ask {
        OperationId operation;
        Incarnation incarnation;
        Instant began;
        Instant repeat_at;
        bool refused = false;
    };
    struct FenceTry {
        Incarnation incarnation;
        bool running = false;
        Instant not_before;
    };

    void execute(const PlanStep& step);
    void grant_guest(const GrantGuest& step);
    void release_guest(const ReleaseGuest& step);
    void release_volume(const ReleaseVolume& step);
    void request_fence(const RequestFence& step);
    void ask_node(const AskNode& step);
    void run_fence(const RunFence& step);
    void fenced(const std::string& node, const Incarnation& life, const std::string& device, Instant began,
                const FenceDone& done);
    void power_on(const PowerOnVictim& step);
    void run_power_ons();
    void confirm_downs();
    void withdraw_requests();
    void settle();
    bool revoke(const std::string& node);
    void commit(Txn txn, Context::Committed callback);
    void reads_victim(Txn& txn, const std::string& node);

    Context& context_;
    Peers& peers_;
    Election& election_;
    std::size_t committing_ = 0;
    std::uint64_t plan_after_ = 0;  // revision of the newest own transaction: the plan waits until it is seen
    std::map<std::string, Ask> asks_;
    std::map<std::string, FenceTry> fences_;
    std::map<std::string, Waiting> waiting_;
    struct PowerOn {
        FenceDeviceRecord device;
        Incarnation incarnation;  // of the victim
        std::uint32_t attempt = 0;
    };
    std::map<std::string, PowerOn> power_ons_;  // committed, by node
    std::uint64_t counted_term_ = 0;            // the term that the next two are about
    std::map<std::string, Instant> retry_not_before_;
    std::map<std::string, std::uint32_t> seen_restarts_;
    struct Running {
        std::map<std::string, std::uint64_t> epochs;
        Instant since;
    };
    std::map<std::string, Running> running_;
};

}  // namespace gemel::cluster
