// Operator: the human in front of `gemel`. Makes the cluster's fence devices, its volume and its guest when
// there are none, and later does what only he may: moves the guest, starts again what ran out of restarts,
// replaces a broken replica, vouches for a node that is off. He looks at the whole cluster now and then, asks
// a node that answers, and asks again when nothing came of it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "base/prng.hpp"
#include "core/cluster/interface.hpp"
#include "core/cluster/node.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

class OperatorPort {
  public:
    virtual const cluster::Tables& truth() const = 0;
    virtual bool takes_orders(std::uint32_t node) const = 0;
    virtual const cluster::ClusterNode* clusterd(std::uint32_t node) const = 0;
    virtual void order(std::uint32_t node, const cluster::ApiRequest& request) = 0;
    virtual bool is_off(std::uint32_t node) const = 0;
    virtual bool has_store(std::uint32_t node) const = 0;  // on its disk

  protected:
    ~OperatorPort() = default;
};

class Operator {
  public:
    Operator(OperatorPort& port, Tasks& tasks, Trace& trace, Counters& counters, Prng random,
             std::uint64_t size_bytes, AckMode ack_mode)
        : port_(port),
          tasks_(tasks),
          trace_(trace),
          counters_(counters),
          random_(random),
          size_bytes_(size_bytes),
          ack_mode_(ack_mode) {}

    void start() { tick(); }
    void ask_handover() { handover_ = true; }
    void ask_migration(bool drain) {
        migrate_ = true;
        drain_ = drain;
        migrate_until_ = tasks_.now() + seconds(12);
    }
    void ask_cancel() { cancel_ = true; }
    void replace(std::uint32_t node) { replace_ = node; }
    // from now on until then he tells the other node that this one is off
    void vouch_for_off(std::uint32_t node, Instant until) {
        vouched_ = node;
        vouch_until_ = until;
    }
    void look_after_everything() { careful_ = true; }
    // once all is made he only does what he is asked to, until he looks after everything
    void obey_script() { obeys_ = true; }
    void answered(const cluster::ApiAnswer& answer);
    // everything was made and the guest was told to run
    bool made_everything() const { return made_; }
    static constexpr const char* kName = "web1";

  private:
    void tick();
    void make();
    void look_after();
    void move_guest(const GuestRecord& guest);
    bool migrate(const cluster::Tables& tables, const GuestRecord& guest);
    void ask(cluster::ApiCommand command);
    void ask(std::uint32_t node, cluster::ApiCommand command);
    void start_alone();
    bool asked_something() const {
        return migrate_ || cancel_ || handover_ || moving_ || replace_ || vouched_;
    }
    std::optional<std::uint32_t> somebody();

    OperatorPort& port_;
    Tasks& tasks_;
    Trace& trace_;
    Counters& counters_;
    Prng random_;
    std::uint64_t size_bytes_;
    AckMode ack_mode_;
    bool made_ = false;
    bool careful_ = false;
    bool obeys_ = false;
    bool handover_ = false;
    bool moving_ = false;
    bool migrate_ = false;
    bool drain_ = false;
    bool cancel_ = false;
    Instant migrate_until_{0};
    Instant undrain_at_ = Instant::never();
    bool pull_plug_ = false;  // it would not follow the button
    std::string move_to_;
    std::optional<std::uint32_t> replace_;
    std::optional<std::uint32_t> vouched_;
    Instant vouch_until_{0};
    Instant stuck_since_ = Instant::never();
    Instant not_before_{0};
    cluster::Tag next_tag_ = 1;
};

}  // namespace gemel::sim
