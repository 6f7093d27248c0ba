// A real libvirtd of this test's own: private mount, network and host name; private /run, settings and state;
// a bridge br-guest; a small NBD server for disks. Needs root. Whatever it started ends with it.
#pragma once

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace gemel::test {

class PrivateLibvirtd {
  public:
    // Empty, or why this machine cannot do it (not root).
    static std::string obstacle();

    PrivateLibvirtd();
    ~PrivateLibvirtd();
    PrivateLibvirtd(const PrivateLibvirtd&) = delete;
    PrivateLibvirtd& operator=(const PrivateLibvirtd&) = delete;

    void start_libvirtd();
    void kill_libvirtd();
    // nbdkit with an empty disk of 1 MiB; returns when the socket is there
    void serve_disk(const std::string& socket, const std::string& export_name);
    // the same by vhost-user, from QEMU's storage daemon
    void serve_vhost_user_disk(const std::string& socket);

  private:
    std::vector<pid_t> children_;
    pid_t libvirtd_ = 0;
};

// Polls until the condition holds; false when the deadline passed.
bool wait_for(const std::function<bool()>& condition, int deadline_ms = 30000);

}  // namespace gemel::test
