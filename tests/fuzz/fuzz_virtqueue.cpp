// A hostile guest: its whole memory, rings, tables and in-flight records are arbitrary bytes, and change
// while the device works. Input: byte 0 = kind of ring, byte 1 = how often memory changes, the rest fills the
// memory.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/invariant.hpp"
#include "core/vhost/block_command.hpp"
#include "core/vhost/ring.hpp"

namespace {

using namespace gemel::vhost;  // NOLINT

constexpr std::uint64_t kBytes = 16384;
constexpr std::uint64_t kGuest = 0x1000;
constexpr std::uint64_t kUser = 0x10000;

struct alignas(64) Memory {
    std::byte bytes[kBytes];
};

void check(const Chain& chain, const Memory& memory) {
    INVARIANT(chain.pieces.size() <= kMaxPieces, "bounded");
    bool writes = false;
    for (const Piece& piece : chain.pieces) {
        INVARIANT(piece.memory >= memory.bytes && piece.length <= kBytes &&
                      piece.memory + piece.length <= memory.bytes + kBytes,
                  "no piece leaves the memory");
        INVARIANT(!writes || piece.device_writes, "what is read comes first");
        writes = piece.device_writes;
    }
}

void carry_out(Chain& chain, const DirtyLog& log) {
    const Disk disk{1U << 20, 512, 4096, 1, false};
    BlockCommand command = parse(chain, disk);
    if (command.broken) return;
    std::vector<std::byte> data(command.operation == Operation::get_id ? 0 : command.length_bytes);
    if (command.refusal == BlockStatus::ok && command.operation == Operation::write)
        get_data(command.data, 0, data);
    if (command.refusal == BlockStatus::ok && command.operation == Operation::read) {
        put_data(command.data, 0, data, log);
    }
    if (command.refusal == BlockStatus::ok && command.operation == Operation::get_id) {
        put_serial(command, "gemel", log);
    }
    put_status(command.status, command.refusal, log);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const bool packed = (data[0] & 1) != 0;
    auto memory = std::make_unique<Memory>();
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    std::copy(bytes + 2, bytes + std::min<std::size_t>(size, kBytes), memory->bytes);
    GuestMemory guest;
    guest.add({kGuest, kBytes / 2, kUser, 0}, memory->bytes);
    guest.add({kGuest + kBytes, kBytes / 2, kUser + kBytes, 0}, memory->bytes + kBytes / 2);
    std::vector<std::byte> bits(2);
    const DirtyLog log(bits);
    std::vector<std::uint64_t> records(in_flight_bytes(packed, 16) / 8);
    RingSetup setup;
    setup.size = 16;
    setup.base = packed ? 0x80008000U : 0;
    setup.descriptors = kUser;
    setup.available = kUser + 256;
    setup.used = kUser + 512;
    setup.log_used = true;
    setup.used_log = kGuest + 512;
    setup.event_index = (data[0] & 2) != 0;
    setup.indirect = (data[0] & 4) != 0;
    if ((data[0] & 8) != 0) {
        setup.in_flight = std::as_writable_bytes(std::span(records));
        std::memcpy(records.data(), memory->bytes + 1024,
                    std::min<std::size_t>(setup.in_flight.size(), 1024));
    }
    auto ring = Ring::open(packed, setup, guest, log);
    if (ring == nullptr) return 0;
    std::vector<Chain> held;
    for (std::size_t step = 0; step < 64; ++step) {
        Chain chain;
        const Taken taken = ring->take(chain);
        if (taken == Taken::broken) {
            INVARIANT(ring->broken() && !ring->problem().empty(), "it says why");
            break;
        }
        if (taken == Taken::chain) {
            check(chain, *memory);
            held.push_back(chain);
        }
        INVARIANT(ring->in_flight() <= setup.size, "no more than the ring has");
        memory->bytes[(step * 37 + data[1]) % 1024] ^= static_cast<std::byte>(data[1]);
        if (held.size() > step % 4) {
            carry_out(held.back(), log);
            ring->put(held.back(), 1);
            held.pop_back();
            ring->publish();
        }
        ring->want_kicks(step % 3 != 0);
    }
    return 0;
}
