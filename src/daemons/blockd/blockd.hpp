// Blockd: the daemon. Owns the reactors and their threads, the volumes and which reactor each lives on, the
// link listeners, the control socket (docs/formats/control.md) and the line to gemel-guard. Which volumes
// exist it learns from the control socket after every start: nothing is attached by itself. Threads: the
// control socket's thread parses requests; the registry belongs to the first reactor ("home"); a volume to
// its own.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "adapters/config/node_config.hpp"
#include "adapters/ipc/control_socket.hpp"
#include "adapters/ring/reactor.hpp"
#include "daemons/blockd/link_listener.hpp"
#include "daemons/blockd/store_renewer.hpp"
#include "daemons/blockd/volume.hpp"

namespace gemel::blockd {

struct BlockdOptions {
    NodeConfig config;
    Incarnation incarnation;
    unsigned reactors = 1;
    std::size_t buffer_bytes = 40U << 20;  // payload memory of all reactors together
};

class Blockd {
  public:
    static Result<std::unique_ptr<Blockd>> create(BlockdOptions options);
    ~Blockd();
    Blockd(const Blockd&) = delete;
    Blockd& operator=(const Blockd&) = delete;

    // Until stop(). Orderly: front ends end, what is with the disks completes (bounded by two seconds).
    void run();
    void stop();  // any thread

  private:
    using Json = nlohmann::json;
    using VolumeTask = std::function<void(Volume&)>;
    struct Entry {
        std::unique_ptr<Volume> volume;
        ring::Reactor* reactor = nullptr;
        bool closing = false;
        std::vector<std::function<void()>> when_gone;  // everybody who asked for its end, in order
    };

    explicit Blockd(BlockdOptions options);
    Status set_up();
    Status open_listeners();
    VolumeReports make_reports(const VolumeId& id);
    void notify(const Json& event);

    // ---- control requests; on the control thread unless said otherwise
    void request(const Json& request, const ipc::Reply& reply);
    void do_status(const ipc::Reply& reply);
    void do_format(const Json& request, const ipc::Reply& reply);
    void do_attach(const Json& request, const ipc::Reply& reply);
    void do_detach(const Json& request, const ipc::Reply& reply);
    void do_file(const Json& request, const ipc::Reply& reply);
    void do_record(const Json& request, const ipc::Reply& reply);
    void do_refuse_epoch(const Json& request, const ipc::Reply& reply);
    void do_peer_proven_down(const Json& request, const ipc::Reply& reply);
    void do_proposal_done(const Json& request, const ipc::Reply& reply);
    void with_volume(const std::string& name, const ipc::Reply& reply, VolumeTask task);

    // ---- home reactor
    ring::Reactor& home() { return *reactors_.front(); }
    void attach_at_home(VolumeOptions options, ipc::Reply reply);
    void detach_at_home(const std::string& name, const ipc::Reply& reply);
    void forget(const std::string& name, std::function<void()> then);
    void status_at_home(const ipc::Reply& reply);
    bool route(const VolumeId& volume, int fd);
    void renew_at_home(Instant sent_at, const std::vector<CommittedVolume>& volumes);
    void stop_at_home();
    void stop_when_empty();
    ring::Reactor& emptiest();

    BlockdOptions options_;
    SessionId process_;
    std::vector<std::unique_ptr<ring::Reactor>> reactors_;
    std::vector<std::thread> threads_;
    std::map<std::string, Entry> volumes_;
    std::vector<std::unique_ptr<LinkListener>> listeners_;
    std::unique_ptr<ring::Timer> stop_limit_;
    std::unique_ptr<ipc::ControlServer> control_;
    std::atomic<ipc::ControlServer*> notifier_{nullptr};
    std::unique_ptr<ipc::ControlClient> guard_;
    std::unique_ptr<StoreRenewer> renewer_;
    bool stopping_ = false;
    bool stopped_cleanly_ = false;
};

}  // namespace gemel::blockd
