// Session: one vhost-user connection of a front end (QEMU) as a pure machine. Messages go in with the number
// of descriptors that came along; an Action comes out: what the driver has to do with them. What the queues
// shall be is state that the driver reads after every message (queue(), in_flight()) and brings about; so a
// message that changes a running queue needs no case of its own.
//
// The front end is QEMU of our own guest: it is not trusted more than the guest inside it. Whatever it sends,
// the machine stays inside its bounds; a message that makes no sense ends the connection with a reason.
// Not in it: mapping memory, eventfds, the rings themselves.
// Source: the vhost-user protocol's text (QEMU 7.2 speaks it; so do cloud-hypervisor and others).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>

#include "base/bytes.hpp"
#include "core/vhost/block_command.hpp"
#include "core/vhost/guest_memory.hpp"
#include "core/vhost/ring.hpp"

namespace gemel::vhost {

inline constexpr std::size_t kHeaderBytes = 12;
inline constexpr std::size_t kMaxPayloadBytes = 4096;
inline constexpr std::size_t kMaxDescriptors = 8;  // along with one message
inline constexpr std::uint16_t kMaxQueues = 16;

// Bits of the device's features that matter outside the guest's driver.
inline constexpr std::uint64_t kFeatureFlush = std::uint64_t{1} << 9;
inline constexpr std::uint64_t kFeatureLogAll = std::uint64_t{1} << 26;
inline constexpr std::uint64_t kFeatureIndirect = std::uint64_t{1} << 28;
inline constexpr std::uint64_t kFeatureEventIndex = std::uint64_t{1} << 29;
inline constexpr std::uint64_t kFeatureProtocol = std::uint64_t{1} << 30;
inline constexpr std::uint64_t kFeaturePacked = std::uint64_t{1} << 34;

// ---- what one message asks of the driver; those marked * are answered by done() ----
struct Nothing {};  // the reply, if any, is there already
struct MapMemory {  // * replaces all regions; one descriptor for each, in order
    std::span<const MemoryRegion> regions;
};
struct AddMemory {  // * one descriptor
    MemoryRegion region;
};
struct RemoveMemory {  // *
    MemoryRegion region;
};
struct MapLog {  // * one descriptor
    std::uint64_t size_bytes = 0;
    std::uint64_t offset = 0;
};
// Descriptors to be kept until the next one comes. present: there is one; otherwise the queue is polled /
// nobody wants to be told.
enum class QueueEvent : std::uint8_t { kick, call, error };
struct SetEvent {  // *
    QueueEvent event = QueueEvent::kick;
    std::uint16_t queue = 0;
    bool present = false;
};
struct SetRequestChannel {};  // * one descriptor: where this side may ask the front end
struct StopQueue {            // drain it, then queue_stopped()
    std::uint16_t queue = 0;
};
struct MakeInFlight {  // make shared memory of that many zero bytes, then in_flight_made()
    std::uint64_t bytes = 0;
};
struct MapInFlight {  // * one descriptor
    std::uint64_t size_bytes = 0;
    std::uint64_t offset = 0;
};
struct Close {  // it cannot go on
    std::string_view reason;
};
using Action = std::variant<Nothing, MapMemory, AddMemory, RemoveMemory, MapLog, SetEvent, SetRequestChannel,
                            StopQueue, MakeInFlight, MapInFlight, Close>;

struct QueueState {
    RingSetup setup;  // without the in-flight records
    bool addressed = false;
    bool started = false;  // it has a kick
    bool enabled = false;
    // The driver opens a ring when this becomes true and closes it when StopQueue comes; while it is false,
    // and the ring open, nothing is taken from it.
    bool runs() const { return addressed && started && enabled && setup.size > 0; }
};

class Session {
  public:
    explicit Session(const Disk& disk);

    // How many bytes follow this header; none: it is no message of this protocol.
    static std::optional<std::uint32_t> payload_bytes(std::span<const std::byte, kHeaderBytes> header);
    // One whole message. Not while an answer is owed (done(), queue_stopped(), in_flight_made()).
    Action message(std::span<const std::byte, kHeaderBytes> header, std::span<const std::byte> payload,
                   std::size_t descriptors);

    // Bytes to be sent now; valid until the next call. in_flight_made(): with the memory's descriptor.
    std::span<const std::byte> reply() const { return std::span(reply_).first(reply_size_); }
    void done(bool well);
    void queue_stopped(std::uint16_t queue, std::uint32_t base);
    void in_flight_made(bool well);
    bool owes() const { return owed_.has_value(); }
    // Set by done(false) where the front end asked for no answer: the connection has to end.
    std::string_view failed() const { return failed_; }

    const QueueState& queue(std::uint16_t index) const { return queues_[index]; }
    std::uint16_t queues() const { return disk_.queues; }
    const Disk& disk() const { return disk_; }
    bool has(std::uint64_t feature) const { return (features_ & feature) != 0; }
    bool packed() const { return has(kFeaturePacked); }
    bool logs() const { return has(kFeatureLogAll); }
    // Every write has to be stable when it is answered: the guest knows no flush, or wants no cache.
    bool write_through() const { return !has(kFeatureFlush) || !writeback_; }

    // The part of the in-flight memory that holds that queue's records; length 0: not tracked.
    struct Records {
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
    };
    Records records(std::uint16_t queue) const;

    // "Ask again for the configuration": for the request channel, without an answer.
    static std::array<std::byte, kHeaderBytes> configuration_changed();
    void resize(std::uint64_t size_bytes) { disk_.size_bytes = size_bytes; }

  private:
    struct Owed {
        std::uint32_t request = 0;
        bool wants_answer = false;
    };
    Action understand(std::uint32_t request, ByteReader& fields, std::size_t descriptors);
    Action queue_message(std::uint32_t request, ByteReader& fields, std::size_t descriptors);
    Action set_features(std::uint64_t wanted);
    Action set_protocol_features(std::uint64_t wanted);
    Action memory_table(ByteReader& fields, std::size_t descriptors);
    Action one_region(std::uint32_t request, ByteReader& fields, std::size_t descriptors);
    Action log_base(ByteReader& fields, std::size_t descriptors);
    Action addresses(ByteReader& fields);
    Action event(std::uint32_t request, std::uint64_t value, std::size_t descriptors);
    Action get_config(ByteReader& fields);
    Action set_config(ByteReader& fields);
    Action in_flight(std::uint32_t request, ByteReader& fields, std::size_t descriptors);

    Action close(std::string_view reason) const { return Close{reason}; }
    Action well();  // nothing to be done by the driver
    std::uint64_t offered() const;
    std::uint64_t in_flight_bytes_each() const { return in_flight_bytes(in_flight_packed_, in_flight_size_); }
    // answers what is owed; put: writes the payload with a ByteWriter
    template <typename Put>
    void answer(std::uint32_t request, Put&& put);
    void reply_number(std::uint32_t request, std::uint64_t value);

    Disk disk_;
    std::uint64_t features_ = 0;
    std::uint64_t protocol_features_ = 0;
    bool writeback_ = true;
    std::array<QueueState, kMaxQueues> queues_{};
    std::array<MemoryRegion, kMaxDescriptors> regions_{};
    std::uint16_t in_flight_queues_ = 0;
    std::uint16_t in_flight_size_ = 0;
    bool in_flight_packed_ = false;
    bool in_flight_padded_ = false;
    std::optional<Owed> owed_;
    std::string_view failed_;
    std::array<std::byte, kHeaderBytes + 512> reply_{};
    std::size_t reply_size_ = 0;
};

}  // namespace gemel::vhost
