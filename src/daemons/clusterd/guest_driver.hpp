// Guests and fence devices: everything that blocks for seconds. libvirt is asked by two workers (one lists,
// one acts), so that a start that hangs does not blind the machine; each fence device has one run at a time.
// Also the guard's side: it is told of a guest before the guest is started, and again whenever it comes back.
#pragma once

#include <functional>
#include <memory>

#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {

struct ConsoleAnswer {
    std::string kind;
    std::string path;
};

class GuestDriver {
  public:
    GuestDriver(const Settings& settings, Sink sink);
    ~GuestDriver();
    GuestDriver(const GuestDriver&) = delete;
    GuestDriver& operator=(const GuestDriver&) = delete;
    void start();

    void handle(const cluster::ListDomains& order);
    void handle(const cluster::StartDomain& order);
    void handle(const cluster::ShutdownDomain& order);
    void handle(const cluster::DestroyDomain& order);
    // Any thread; answered on a worker.
    void console(const GuestId& guest, std::function<void(Result<ConsoleAnswer>)> answer);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

class FenceDriver {
  public:
    explicit FenceDriver(Sink sink);
    ~FenceDriver();
    FenceDriver(const FenceDriver&) = delete;
    FenceDriver& operator=(const FenceDriver&) = delete;
    void handle(const cluster::Fence& order);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

class GuardDriver {
  public:
    explicit GuardDriver(const Settings& settings);
    ~GuardDriver();
    GuardDriver(const GuardDriver&) = delete;
    GuardDriver& operator=(const GuardDriver&) = delete;
    void start();

    void handle(const cluster::GuardRegister& order);
    void handle(const cluster::GuardRevoked& order);
    void renewed(const cluster::BlockdRenew& order);
    void handle(const cluster::GuardForget& order);
    bool connected() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::clusterd
