// Volume: the driver of one replication engine. Joins it with its disk (VolumeIo), its peer (PeerLink), its
// front end (front::FrontEnd) and the control plane (VolumeReports). Decides nothing: inputs go in,
// outputs are executed. Lives on one reactor; every call is made on that reactor's thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "adapters/config/node_config.hpp"
#include "adapters/front/block_service.hpp"
#include "adapters/front/front_end.hpp"
#include "core/replication/engine.hpp"
#include "daemons/blockd/peer_link.hpp"
#include "daemons/blockd/volume_io.hpp"

namespace gemel::blockd {

// What a volume says to the rest of the node. Called on the reactor's thread; must not block.
struct VolumeReports {
    std::function<void(const std::string& volume, const replication::View&)> view;
    std::function<void(const std::string& volume, const replication::Propose&)> propose;
    std::function<void(const std::string& volume, std::uint64_t at_least_revision)> need_record;
    // socket: empty when closed; pid: of the bound client, 0 when none
    std::function<void(const std::string& volume, std::uint64_t epoch, const std::string& socket, int pid)>
        front;
    std::function<void(const std::string& volume, const replication::Notice&)> notice;
    std::function<void(const std::string& node, const Incarnation&, bool up)> session;
    std::function<void(const std::string& volume, const replication::LeaseExtended&)> lease;
    std::function<void(const std::string& line)> log;
};

struct VolumeOptions {
    std::string name;
    VolumeId id;
    ReplicaId replica;
    std::string path;
    std::string peer_node;  // empty: none
    std::map<std::string, std::string> peer_links;
    ClusterId cluster;
    std::string node;
    std::string run_dir;
    Incarnation incarnation;
    SessionId process;
    TimingConfig timing;
};

class Volume final : private front::BlockService {
  public:
    using Answer = std::function<void(Status)>;

    Volume(ring::Reactor& reactor, VolumeOptions options, VolumeReports reports);
    ~Volume() override;
    Volume(const Volume&) = delete;
    Volume& operator=(const Volume&) = delete;

    const VolumeOptions& options() const { return options_; }

    // Opens the backing, waiting for an older process's lock, and starts the engine.
    void attach(Answer answer);
    // Ends everything; `closed` runs when nothing is under way any more. clean: a later attach need not
    // assume that I/O of this process outlived it.
    void close(bool clean, std::function<void()> closed);

    bool is_primary() const { return engine_ && engine_->view().role == replication::Role::primary; }
    replication::View view() const;
    // proposals not yet answered and a view, for a control plane that has just connected
    void repeat_reports();

    void record(const CommittedVolume& committed);
    void renew(Instant sent_at, const CommittedVolume& committed);
    void refuse_epoch(std::uint64_t epoch, Answer answer);
    void peer_proven_down(const Incarnation& incarnation);
    void proposal_done(const replication::ProposalDone& done);
    void peer_connection(int fd);

  private:
    void submit(front::BlockRequest& request) override;

    void try_open();
    Status start_engine(disk::OpenFile file);
    replication::EngineConfig engine_config(bool outlived);
    void start_link();
    void input(replication::Input one);
    void execute(replication::Output& output);
    std::vector<front::Door> doors();
    void open_front(const replication::ServeFront& serve);
    void close_front(std::uint64_t epoch, bool forget);
    void front_report();
    void take_notice(const replication::Notice& notice);
    void tell_view(bool even_if_equal);
    void answer_refusals(std::uint64_t epoch);
    void closed_if_idle();
    std::string marker() const {
        return options_.run_dir + "/blockd-" + options_.id.to_string() + ".attached";
    }
    void log(const std::string& line) const { reports_.log("volume " + options_.name + ": " + line); }

    ring::Reactor& reactor_;
    VolumeOptions options_;
    VolumeReports reports_;
    std::unique_ptr<VolumeIo> io_;
    std::unique_ptr<PeerLink> link_;
    std::unique_ptr<replication::Engine> engine_;
    std::uint64_t size_bytes_ = 0;

    ring::Timer open_timer_;
    ring::Timer engine_timer_;
    ring::Timer view_timer_;
    Answer attach_answer_;
    Instant open_since_;
    Instant complained_at_;

    replication::Outputs outputs_;
    std::deque<replication::Input> inputs_;
    bool stepping_ = false;
    Instant last_step_;

    std::optional<CommittedVolume> committed_;
    std::unique_ptr<front::FrontEnd> front_;
    std::vector<std::unique_ptr<front::FrontEnd>> closing_fronts_;
    std::map<std::uint64_t, replication::Propose> proposals_;
    std::vector<std::pair<std::uint64_t, Answer>> refusals_;
    replication::View told_view_;
    bool view_told_ = false;
    std::optional<Incarnation> peer_incarnation_;

    bool closing_ = false;
    bool clean_ = false;
    bool link_stopping_ = false;
    bool link_stopped_ = false;
    ring::Timer close_timer_;
    std::function<void()> closed_;
};

}  // namespace gemel::blockd
