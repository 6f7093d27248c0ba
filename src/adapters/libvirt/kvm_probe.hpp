// Does KVM work on this host? The file /dev/kvm proves little: a host that emulates virtualization badly has
// it too and takes minutes for what a kernel's start needs. So a small program is really run, by QEMU under
// KVM, with a deadline.
//
// Promises: at most kKvmProbeLimit, then cached in run_dir for this boot (kernel boot id), so that a
// restarted daemon answers at once; no process is left behind; what goes wrong is a "no" with its reason,
// never an error. Blocks: call it from a worker, at the daemon's start rather than when the first guest is
// waiting.
#pragma once

#include <chrono>
#include <string>

namespace gemel {

inline constexpr std::chrono::milliseconds kKvmProbeLimit{5000};

struct KvmVerdict {
    bool works = false;
    std::string why;  // one line, empty where it works
    bool cached = false;
    bool operator==(const KvmVerdict&) const = default;
};

KvmVerdict probe_kvm(const std::string& run_dir, const std::string& emulator = "/usr/bin/qemu-system-x86_64");

// The run itself, for probe_kvm and its tests: accelerator "kvm" or "tcg".
KvmVerdict run_probe(const std::string& run_dir, const std::string& emulator, const std::string& accelerator,
                     std::chrono::milliseconds limit);

}  // namespace gemel
