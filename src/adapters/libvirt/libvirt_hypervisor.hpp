// The guests of this host, through libvirt's C library (qemu:///system).
//
// Promises: a thin layer without memory or policy: each call is one question or one order; domains are
// transient; an order that finds its work done succeeds (destroy of a domain that is gone); a connection that
// broke is opened again by the next call; libvirt's own answer stands in every error. A libvirtd that stopped
// answering is noticed by keep-alives within about 20 s; until then a call may block. Not here: which guest
// may run (core/ha), what a domain looks like (core/guest), killing a QEMU that libvirt cannot end in time
// (gemel-guard does it by its process id). Threads: one at a time per object; calls block, so use a worker.
// The change listener is called on libvirt's event thread and must only hand on a message.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/cluster/interface.hpp"

// libvirt's own names for what its header declares  NOLINTBEGIN(bugprone-reserved-identifier)
struct _virConnect;
struct _virDomain;
// NOLINTEND(bugprone-reserved-identifier)

namespace gemel {

struct Domain {
    GuestId uuid;
    std::string name;
    cluster::DomainState state = cluster::DomainState::running;
    std::string state_text;  // libvirt's word: running, paused, in shutdown, shut off, crashed ...
    std::string reason;      // booted, unpaused, user, I/O error ... empty where libvirt has none
    std::string kind;        // kvm, qemu
};

struct Console {
    std::string kind;  // pty, unix
    std::string path;
};

struct HypervisorVersion {
    std::string libvirt;
    std::string qemu;
    std::vector<std::string> machines;  // types this QEMU offers, aliases included
};

class LibvirtHypervisor {
  public:
    // Makes libvirt learn what QEMU can: about 4 s once for each host and version of QEMU, which the first
    // start of a domain, in a failover perhaps, need not pay then. error unavailable: libvirtd does not
    // answer
    static Result<std::unique_ptr<LibvirtHypervisor>> open(const std::string& uri = "qemu:///system");
    ~LibvirtHypervisor();
    LibvirtHypervisor(const LibvirtHypervisor&) = delete;
    LibvirtHypervisor& operator=(const LibvirtHypervisor&) = delete;

    // Called after any domain changed its state, and after the connection was lost. Once, before other calls.
    void on_change(std::function<void()> listener);

    Result<std::vector<Domain>> list();
    Result<std::optional<Domain>> find(const GuestId& uuid);

    // Creates a transient domain; error already_exists where one of that uuid or name exists.
    Result<Domain> create(const std::string& domain_xml, bool paused);
    Status suspend(const GuestId& uuid);
    Status resume(const GuestId& uuid);
    // Presses the power button; the guest decides.
    Status shutdown(const GuestId& uuid);
    // Pulls the plug. About 11 s where the disk's server is away (QEMU then ignores SIGTERM).
    Status destroy(const GuestId& uuid);
    // Plugs or unplugs every network cable of the guest. Needs a QEMU that answers.
    Status set_links(const GuestId& uuid, bool up);

    // Host names of the guest's network interfaces (vnet0 ...): they can be taken down without QEMU.
    Result<std::vector<std::string>> host_interfaces(const GuestId& uuid);
    // error not_found: no such domain; failed_precondition: it has no serial line
    Result<Console> console(const GuestId& uuid);
    // Process of its QEMU, from libvirt's pid file.
    Result<pid_t> process(const GuestId& uuid);
    Result<HypervisorVersion> version();

  private:
    struct Listener;
    static int on_event(_virConnect* connection, _virDomain* domain, int event, int detail, void* shared);
    static void on_close(_virConnect* connection, int reason, void* shared);
    static void release_listener(void* shared);
    explicit LibvirtHypervisor(std::string uri);
    Status connect();
    void disconnect();
    template <typename Use>
    auto with_domain(const GuestId& uuid, Use use) -> decltype(use(static_cast<_virDomain*>(nullptr)));
    Result<std::string> description(const GuestId& uuid);

    std::string uri_;
    _virConnect* connection_ = nullptr;
    int event_registration_ = -1;
    std::shared_ptr<Listener> listener_;
};

}  // namespace gemel
