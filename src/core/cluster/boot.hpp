// Boot: from power-on to "acting". Starts the store member only when its data may be trusted, asks every
// known member on all paths before anything is decided, registers this life. Also afterwards: notices that
// this store is old (another member has a higher revision or a later lineage) or that both sides forced since
// their common lineage, and stops (design brief 3.5; C5, H35, H39).
//
//   facts -> choosing --store present, nonce vouched for or nobody answers--> starting -quorate-> asking
//              |  \--nothing on disk, nobody has a store--> starting (first start)            |
//              |  \--nothing on disk, a peer has a store--> joining                           |
//              \--a peer's committed nonce is another--> setting_aside -> joining             |
//   asking --all answered or ask_ms silent--> registering --nonce stable, committed--> acting
//   any --this store is old--> setting_aside -> joining --JoinOffer--> starting
//   any --both forced--> split_brain --operator keeps this one--> starting
//                                    --operator keeps the other--> setting_aside
#pragma once

#include <optional>
#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Boot {
  public:
    enum class State : std::uint8_t {
        facts,
        choosing,
        starting,
        asking,
        registering,
        acting,
        setting_aside,
        joining,
        split_brain,
    };

    Boot(Context& context, Peers& peers) : context_(context), peers_(peers) {}
    void facts(const BootFacts& facts);
    void heard(const std::string& from, const Heartbeat& heartbeat);
    // What our own member's directory holds, quorum or not.
    void own_disk(const LineageRecord& lineage);
    bool wants_own_disk() const;
    // false: this member was added in this life. Until it has caught up its disk shows the joined store at
    // some moment of the past, and whoever is at the present one would look like a later history.
    bool has_own_history() const { return !joined_; }
    // true: it was the answer to a question of this part
    bool read_done(const ReadDone& done);
    void join_offer(const JoinOffer& offer);
    // After every input. May set context.acting and context.store.
    void evaluate();
    // The arbiter made this node a single member: the store is another one now.
    void forced();
    // Our store is about to be of this lineage (nil: it is not after all); the tables show it later.
    void expect_lineage(const LineageId& lineage) { forced_lineage_ = lineage; }
    // Both sides forced, and the operator chooses this one: a new lineage that names both as its ancestors.
    // The other side sees that its own is one of them, sets its store aside and joins.
    Status may_keep_own() const;
    void keep_own();
    // Asked to release: the store goes aside; done() when that is stable.
    void set_aside(const std::string& reason);

    StoreClaim claim() const;
    bool wants_to_join() const { return state_ == State::joining; }
    bool aside() const { return state_ == State::joining; }
    State state() const { return state_; }
    const std::string& why() const { return why_; }

  private:
    void move(State to, const std::string& why);
    void choose();
    void ask_members();
    bool outlived(const Uuid& known, const std::vector<Uuid>& former) const;
    bool others_have_everything() const;
    void prepare_joining(const std::string& why);
    void start_store();
    void restart_store();
    void ask();
    const LineageRecord* own_lineage() const;
    bool tables_are_own() const;  // and not those of a store that did not go on from our disk
    bool forced_here() const;
    bool rejected() const;
    void check_lineages();
    void after_split();
    void register_life();
    void commit_registration();
    bool bootstrap();
    bool nonce_known(const Uuid& committed) const;

    Context& context_;
    Peers& peers_;
    State state_ = State::facts;
    std::string why_;
    BootFacts facts_;
    Instant since_;
    bool adopted_ = false;
    bool joined_ =
        false;          // this member was added by a committed change in this life: its nonce is new by right
    Uuid begun_nonce_;  // a renewal that an earlier process began: it may have landed
    bool vouched_ = false;  // started from an old image that does no harm (others_have_everything())
    bool asking_members_ = false;
    std::map<Tag, std::string> asked_;  // members that were asked before ours is started
    bool members_told_ = false;
    bool command_running_ = false;
    Instant started_at_;  // when the last start of the member was reported done
    Instant restart_at_;  // a member that ended is not started again before
    Duration restart_pause_ = seconds(1);
    bool registration_running_ = false;
    LineageId forced_lineage_;  // made by this process, nil: none
    // Our own store's history: the tables may be another member's, until ours serves.
    std::optional<LineageRecord> own_disk_;
    std::uint64_t registered_at_ =
        0;  // revision of the committed registration; acting begins when it is seen
    // A peer claims this revision of our lineage; our own linearizable answer asked after that must not be
    // behind.
    std::map<std::string, std::pair<std::uint64_t, Instant>> claims_;
};

}  // namespace gemel::cluster
