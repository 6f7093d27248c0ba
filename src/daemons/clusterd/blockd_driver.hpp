// The blockd side of the seam over blockd's control socket (docs/formats/control.md). Lives on the loop's
// thread: every method is called there, and everything that comes from the socket is posted there first.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "adapters/ipc/control_socket.hpp"
#include "core/cluster/interface.hpp"
#include "daemons/clusterd/loop.hpp"
#include "daemons/clusterd/settings.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {

class BlockdDriver {
  public:
    // tables: last known ones, for the names of volumes
    BlockdDriver(const Settings& settings, Loop& loop, Sink sink,
                 std::function<const cluster::Tables&()> tables);
    void start();
    void tick(Instant now);

    void handle(const cluster::BlockdRecord& order);
    void handle(const cluster::BlockdDetach& order);
    void handle(const cluster::BlockdRenew& order);
    void handle(const cluster::BlockdProposalDone& order);
    void handle(const cluster::BlockdRefuseEpoch& order);
    void handle(const cluster::BlockdPeerProvenDown& order);
    void handle(const cluster::BlockdFormat& order);
    void handle(const cluster::BlockdDelete& order);
    void handle(const cluster::BlockdSetAside& order);
    void handle(const cluster::BlockdRelease& order);
    void handle(const cluster::BlockdCloseAll& order);

    bool connected() const { return up_; }

  private:
    using Json = nlohmann::json;
    using Answer = std::function<void(const Result<Json>&)>;
    struct Volume {
        std::string name;
        bool attached = false;
        bool attaching = false;
        bool detaching = false;                 // what blockd still says of it is of the past
        std::optional<CommittedVolume> record;  // the newest one to be told
    };

    struct Front {
        std::uint64_t epoch = 0;
        std::uint64_t sessions = 0;
    };

    void request(Json body, Duration timeout, Answer answer);  // answer on the loop
    void on_connected();
    void on_disconnected();
    void on_volume_event(const std::string& kind, const VolumeId& id, const Json& event);
    void mark_detaching(const VolumeId& id);
    void forget_detached(const VolumeId& id);
    void on_status(const Result<Json>& answer);
    void on_event(const Json& event);
    void on_view(const VolumeId& id, const std::string& name, const Json& view);
    void on_front(const VolumeId& id, const Json& event);
    void send_record(const VolumeId& id);
    void attach(const VolumeId& id);
    std::optional<std::string> name_of(const VolumeId& id) const;
    const ReplicaRecord* own_replica(const VolumeRecord& record) const;
    Json format_request(const VolumeRecord& record) const;
    void done(cluster::Tag tag, const Result<Json>& answer);

    const Settings& settings_;
    Loop& loop_;
    Sink sink_;
    std::function<const cluster::Tables&()> tables_;
    std::map<VolumeId, Volume> volumes_;
    std::map<VolumeId, Front> fronts_;  // as told on this connection
    Instant connected_at_;
    bool up_ = false;
    bool asking_ = false;  // a status request is open
    Instant asked_at_;
    std::uint64_t life_ = 0;  // counts connections: answers of an older one are of no use
    std::unique_ptr<ipc::ControlClient> client_;
};

}  // namespace gemel::clusterd
