// GuardDaemon: joins the pure guard (core/ha/guard.hpp) with its control socket (docs/formats/control.md) and
// with the QEMU processes of this node. Control requests come in on the socket's thread and are queued; the
// guard runs on the caller of run() alone. What it knows is kept on tmpfs (run_dir/guard.state), so that a
// restart of the guard goes on guarding. The hardware watchdog is not fed here yet: it comes with real hosts;
// what cannot be verified is logged and in `status`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "adapters/ipc/control_socket.hpp"
#include "core/ha/guard.hpp"
#include "daemons/guard/process_control.hpp"

namespace gemel::guard {

class GuardDaemon {
  public:
    GuardDaemon(std::string run_dir, ha::GuardConfig config);
    ~GuardDaemon();
    GuardDaemon(const GuardDaemon&) = delete;
    GuardDaemon& operator=(const GuardDaemon&) = delete;

    // Restores what a former life knew, then listens on run_dir/guard.sock.
    Status start();
    // Until stop(). Looks at every guest's process at least four times a second.
    void run();
    void stop();  // from any thread or a signal handler's thread

  private:
    struct Request {
        nlohmann::json body;
        ipc::Reply reply;
    };
    struct Guest {
        std::string name;
        ProcessId process;
        ha::SeenDomain last_seen = ha::SeenDomain::running;
    };
    void handle(const Request& request);
    Status apply(const nlohmann::json& body);
    Status register_guest(const nlohmann::json& body);
    Status keep_for_later(const nlohmann::json& lease);
    void learn_name(const std::string& name, const VolumeId& volume);
    nlohmann::json status() const;
    void step(const ha::GuardInput& input);
    void act(const ha::GuardOutput& output);
    void look_at_guests();
    void save();
    void restore();

    std::string run_dir_;
    ha::Guard guard_;
    std::map<GuestId, Guest> guests_;
    std::map<GuestId, nlohmann::json> registrations_;     // as they came, for guard.state
    std::map<std::string, nlohmann::json> leases_;        // "volume/epoch" -> request, for guard.state
    std::map<std::string, VolumeId> names_;               // of the volumes of registered guests
    std::map<std::string, nlohmann::json> early_leases_;  // by name, before a guest of theirs was registered
    bool feeding_ = true;
    bool changed_ = false;
    Instant saved_at_;
    std::unique_ptr<ipc::ControlServer> server_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Request> requests_;
    bool stop_ = false;
};

}  // namespace gemel::guard
