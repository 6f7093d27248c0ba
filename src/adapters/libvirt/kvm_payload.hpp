// The smallest program that uses of KVM what a kernel uses: real mode, protected mode, paging, 64-bit mode at
// a kernel's address, an exception through an interrupt table, and enough plain instructions (100 million)
// that only a processor that runs them natively finishes in time. A firmware image, so that nothing else is
// needed to start it. Its answer is a byte written to the port kProbePort.
#pragma once

#include <cstdint>
#include <string>

namespace gemel {

inline constexpr std::uint16_t kProbePort = 0xf4;
inline constexpr std::uint8_t kProbeAnswer = 0x2a;

// 64 KiB, to be given to QEMU as its firmware.
std::string kvm_probe_firmware();

}  // namespace gemel
