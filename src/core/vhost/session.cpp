#include "core/vhost/session.hpp"

#include <algorithm>
#include <cstring>

#include "base/invariant.hpp"

namespace gemel::vhost {

namespace {

enum Request : std::uint32_t {
    kGetFeatures = 1,
    kSetFeatures = 2,
    kSetOwner = 3,
    kResetOwner = 4,
    kSetMemTable = 5,
    kSetLogBase = 6,
    kSetLogFd = 7,
    kSetVringNum = 8,
    kSetVringAddr = 9,
    kSetVringBase = 10,
    kGetVringBase = 11,
    kSetVringKick = 12,
    kSetVringCall = 13,
    kSetVringErr = 14,
    kGetProtocolFeatures = 15,
    kSetProtocolFeatures = 16,
    kGetQueueNum = 17,
    kSetVringEnable = 18,
    kSetBackendRequestFd = 21,
    kGetConfig = 24,
    kSetConfig = 25,
    kGetInflightFd = 31,
    kSetInflightFd = 32,
    kGetMaxMemSlots = 36,
    kAddMemReg = 37,
    kRemMemReg = 38,
};
inline constexpr std::uint32_t kBackendConfigChanged = 2;

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kVersionMask = 3;
inline constexpr std::uint32_t kReplyFlag = 4;
inline constexpr std::uint32_t kNeedReply = 8;
inline constexpr std::uint64_t kQueueMask = 0xff;
inline constexpr std::uint64_t kNoDescriptor = 0x100;
inline constexpr std::uint32_t kRingLogged = 1;
inline constexpr std::uint32_t kMaxConfigBytes = 256;

constexpr std::uint64_t bit(unsigned number) {
    return std::uint64_t{1} << number;
}
// VIRTIO_BLK_F_SEG_MAX, _BLK_SIZE, _FLUSH, _TOPOLOGY, _CONFIG_WCE, _MQ, _DISCARD, _WRITE_ZEROES; LOG_ALL,
// INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, RING_PACKED
inline constexpr std::uint64_t kOffered = bit(2) | bit(6) | bit(9) | bit(10) | bit(11) | bit(12) | bit(13) |
                                          bit(14) | bit(26) | bit(28) | bit(29) | bit(30) | bit(32) | bit(34);
inline constexpr std::uint64_t kReadOnly = bit(5);

inline constexpr std::uint64_t kProtocolLogShm = bit(1);
inline constexpr std::uint64_t kProtocolReplyAck = bit(3);
inline constexpr std::uint64_t kProtocolConfig = bit(9);
// MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, CONFIGURE_MEM_SLOTS
inline constexpr std::uint64_t kProtocolOffered =
    bit(0) | kProtocolLogShm | kProtocolReplyAck | bit(5) | kProtocolConfig | bit(12) | bit(15);

std::uint32_t word(std::span<const std::byte, kHeaderBytes> header, std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, header.data() + at, sizeof value);
    return value;
}

MemoryRegion region_of(ByteReader& fields) {
    MemoryRegion one;
    one.guest_address = fields.u64();
    one.size_bytes = fields.u64();
    one.user_address = fields.u64();
    one.map_offset = fields.u64();
    return one;
}

}  // namespace

template <typename Put>
void Session::answer(std::uint32_t request, Put&& put) {
    ByteWriter out(reply_);
    out.u32(request);
    out.u32(kVersion | kReplyFlag);
    out.u32(0);
    put(out);
    reply_size_ = out.position();
    out.patch_u32(8, static_cast<std::uint32_t>(reply_size_ - kHeaderBytes));
    owed_.reset();
}

Session::Session(const Disk& disk) : disk_(disk) {
    INVARIANT(disk.queues >= 1 && disk.queues <= kMaxQueues, "the driver knows how many it can serve");
}

std::optional<std::uint32_t> Session::payload_bytes(std::span<const std::byte, kHeaderBytes> header) {
    const std::uint32_t bytes = word(header, 8);
    if ((word(header, 4) & kVersionMask) != kVersion || bytes > kMaxPayloadBytes) return std::nullopt;
    return bytes;
}

Action Session::message(std::span<const std::byte, kHeaderBytes> header, std::span<const std::byte> payload,
                        std::size_t descriptors) {
    INVARIANT(!owed_, "one message at a time");
    INVARIANT(descriptors <= kMaxDescriptors, "the driver receives no more than that");
    reply_size_ = 0;
    const std::uint32_t request = word(header, 0);
    const bool wants = (word(header, 4) & kNeedReply) != 0 && (protocol_features_ & kProtocolReplyAck) != 0;
    owed_ = Owed{request, wants};
    ByteReader fields(payload);
    Action action = understand(request, fields, descriptors);
    if (!fields.ok()) action = close("a message is shorter than its kind");
    if (std::holds_alternative<Close>(action)) {
        owed_.reset();
        reply_size_ = 0;
    }
    return action;
}

Action Session::understand(std::uint32_t request, ByteReader& fields, std::size_t descriptors) {
    switch (request) {
        case kGetFeatures: reply_number(request, offered()); return Nothing{};
        case kSetFeatures: return set_features(fields.u64());
        case kSetOwner:
        case kResetOwner: return well();
        case kGetProtocolFeatures: reply_number(request, kProtocolOffered); return Nothing{};
        case kSetProtocolFeatures: return set_protocol_features(fields.u64());
        case kGetQueueNum: reply_number(request, disk_.queues); return Nothing{};
        case kGetMaxMemSlots: reply_number(request, kMaxRegions); return Nothing{};
        case kSetMemTable: return memory_table(fields, descriptors);
        case kAddMemReg:
        case kRemMemReg: return one_region(request, fields, descriptors);
        case kSetLogBase: return log_base(fields, descriptors);
        case kSetLogFd: return well();  // to be told that the log has grown: it is read anyhow
        case kGetConfig: return get_config(fields);
        case kSetConfig: return set_config(fields);
        case kGetInflightFd:
        case kSetInflightFd: return in_flight(request, fields, descriptors);
        case kSetBackendRequestFd:
            return descriptors == 1 ? Action{SetRequestChannel{}}
                                    : close("a request channel needs a descriptor");
        case kSetVringKick:
        case kSetVringCall:
        case kSetVringErr: return event(request, fields.u64(), descriptors);
        case kSetVringAddr: return addresses(fields);
        case kSetVringNum:
        case kSetVringBase:
        case kGetVringBase:
        case kSetVringEnable: return queue_message(request, fields, descriptors);
        default: return close("a message that was not agreed on");
    }
}

// ---- features ----

std::uint64_t Session::offered() const {
    return kOffered | (disk_.read_only ? kReadOnly : 0);
}

Action Session::set_features(std::uint64_t wanted) {
    if ((wanted & ~offered()) != 0) return close("a feature that was not offered");
    features_ = wanted;
    for (QueueState& queue : queues_) {
        queue.setup.event_index = has(kFeatureEventIndex);
        queue.setup.indirect = has(kFeatureIndirect);
        if (!has(kFeatureProtocol)) queue.enabled = true;
    }
    return well();
}

Action Session::set_protocol_features(std::uint64_t wanted) {
    if ((wanted & ~kProtocolOffered) != 0) return close("a protocol feature that was not offered");
    protocol_features_ = wanted;
    return well();
}

// ---- memory ----

Action Session::memory_table(ByteReader& fields, std::size_t descriptors) {
    const std::uint32_t count = fields.u32();
    fields.skip(4);
    if (count > regions_.size() || count != descriptors) return close("not one descriptor for each region");
    for (std::uint32_t i = 0; i < count; ++i) regions_[i] = region_of(fields);
    return MapMemory{std::span(regions_).first(count)};
}

Action Session::one_region(std::uint32_t request, ByteReader& fields, std::size_t descriptors) {
    fields.skip(8);
    const MemoryRegion region = region_of(fields);
    if (request == kRemMemReg) return RemoveMemory{region};
    if (descriptors != 1) return close("a region needs one descriptor");
    return AddMemory{region};
}

Action Session::log_base(ByteReader& fields, std::size_t descriptors) {
    const std::uint64_t bytes = fields.u64();
    const std::uint64_t offset = fields.u64();
    if ((protocol_features_ & kProtocolLogShm) == 0 || descriptors != 1) {
        return close("a log that is not shared memory");
    }
    return MapLog{bytes, offset};
}

// ---- queues ----

Action Session::queue_message(std::uint32_t request, ByteReader& fields, std::size_t descriptors) {
    const std::uint32_t index = fields.u32();
    const std::uint32_t value = fields.u32();
    if (index >= disk_.queues || descriptors != 0) return close("there is no such queue");
    QueueState& queue = queues_[index];
    if (request == kGetVringBase) return StopQueue{static_cast<std::uint16_t>(index)};
    if (request == kSetVringEnable) {
        if (!has(kFeatureProtocol)) return close("enabling a queue was not agreed on");
        queue.enabled = value != 0;
        return well();
    }
    if (queue.started) return close("a queue is changed while it runs");
    if (request == kSetVringNum) {
        if (value == 0 || value > kMaxQueueSize) return close("a queue of that size is not possible");
        queue.setup.size = static_cast<std::uint16_t>(value);
    } else {
        queue.setup.base = value;
    }
    return well();
}

// While a queue runs only its logging may change: at the begin and end of a migration.
Action Session::addresses(ByteReader& fields) {
    const std::uint32_t index = fields.u32();
    const std::uint32_t flags = fields.u32();
    const std::uint64_t descriptors = fields.u64();
    const std::uint64_t used = fields.u64();
    const std::uint64_t available = fields.u64();
    const std::uint64_t log = fields.u64();
    if (index >= disk_.queues) return close("there is no such queue");
    QueueState& queue = queues_[index];
    RingSetup& setup = queue.setup;
    const bool same = queue.addressed && setup.descriptors == descriptors && setup.used == used &&
                      setup.available == available;
    if (queue.started && !same) return close("a queue is changed while it runs");
    setup.descriptors = descriptors;
    setup.used = used;
    setup.available = available;
    setup.used_log = log;
    setup.log_used = (flags & kRingLogged) != 0;
    queue.addressed = true;
    return well();
}

Action Session::event(std::uint32_t request, std::uint64_t value, std::size_t descriptors) {
    const auto index = static_cast<std::uint16_t>(value & kQueueMask);
    const bool present = (value & kNoDescriptor) == 0;
    if (index >= disk_.queues) return close("there is no such queue");
    if (descriptors != (present ? 1U : 0U)) return close("a queue's event without its descriptor");
    if (request == kSetVringKick) {
        if (!present) return close("a queue without a kick: polling was not agreed on");
        queues_[index].started = true;
        return SetEvent{QueueEvent::kick, index, true};
    }
    return SetEvent{request == kSetVringCall ? QueueEvent::call : QueueEvent::error, index, present};
}

void Session::queue_stopped(std::uint16_t queue, std::uint32_t base) {
    INVARIANT(owed_ && owed_->request == kGetVringBase, "it was asked for");
    queues_[queue].started = false;
    queues_[queue].setup.base = base;
    answer(kGetVringBase, [&](ByteWriter& out) {
        out.u32(queue);
        out.u32(base);
    });
}

// ---- configuration ----

Action Session::get_config(ByteReader& fields) {
    const std::uint32_t offset = fields.u32();
    const std::uint32_t bytes = fields.u32();
    const std::uint32_t flags = fields.u32();
    if (offset > kMaxConfigBytes || bytes > kMaxConfigBytes - offset || fields.remaining() != bytes) {
        return close("a configuration of that size is not possible");
    }
    std::array<std::byte, kMaxConfigBytes> all{};
    std::ranges::copy(config_space(disk_, writeback_), all.begin());
    answer(kGetConfig, [&](ByteWriter& out) {
        out.u32(offset);
        out.u32(bytes);
        out.u32(flags);
        out.raw(std::span(all).subspan(offset, bytes));
    });
    return Nothing{};
}

Action Session::set_config(ByteReader& fields) {
    const std::uint32_t offset = fields.u32();
    const std::uint32_t bytes = fields.u32();
    fields.skip(4);
    if (fields.remaining() != bytes) return close("a configuration shorter than it says");
    if (offset != kConfigWritebackAt || bytes != 1) return close("only the write cache can be configured");
    writeback_ = fields.u8() != 0;
    return well();
}

std::array<std::byte, kHeaderBytes> Session::configuration_changed() {
    std::array<std::byte, kHeaderBytes> bytes{};
    ByteWriter out(bytes);
    out.u32(kBackendConfigChanged);
    out.u32(kVersion);
    out.u32(0);
    return bytes;
}

// ---- in-flight records ----

// The protocol's text counts 20 bytes of fields, QEMU sends and wants 24, with its compiler's padding.
Action Session::in_flight(std::uint32_t request, ByteReader& fields, std::size_t descriptors) {
    in_flight_padded_ = fields.remaining() >= 24;
    const std::uint64_t bytes = fields.u64();
    const std::uint64_t offset = fields.u64();
    const std::uint16_t queues = fields.u16();
    const std::uint16_t size = fields.u16();
    if (queues == 0 || queues > disk_.queues || size == 0 || size > kMaxQueueSize) {
        return close("in-flight records for queues that are not possible");
    }
    const std::uint64_t needed = std::uint64_t{queues} * in_flight_bytes(packed(), size);
    if (request == kSetInflightFd && (descriptors != 1 || bytes < needed)) {
        return close("in-flight records that hold too little");
    }
    in_flight_queues_ = queues;
    in_flight_size_ = size;
    in_flight_packed_ = packed();
    if (request == kGetInflightFd) return MakeInFlight{needed};
    return MapInFlight{needed, offset};
}

Session::Records Session::records(std::uint16_t queue) const {
    if (queue >= in_flight_queues_ || queues_[queue].setup.size != in_flight_size_ ||
        in_flight_packed_ != packed()) {
        return {};
    }
    return {queue * in_flight_bytes_each(), in_flight_bytes_each()};
}

void Session::in_flight_made(bool well) {
    INVARIANT(owed_ && owed_->request == kGetInflightFd, "it was asked for");
    if (!well) in_flight_queues_ = 0;
    answer(kGetInflightFd, [this](ByteWriter& out) {
        out.u64(in_flight_queues_ * in_flight_bytes_each());
        out.u64(0);
        out.u16(in_flight_queues_);
        out.u16(in_flight_size_);
        if (in_flight_padded_) out.u32(0);
    });
}

// ---- answers ----

Action Session::well() {
    done(true);
    return Nothing{};
}

void Session::done(bool well) {
    INVARIANT(owed_, "a message was given");
    const Owed owed = *owed_;
    owed_.reset();
    if (owed.request == kSetInflightFd && !well) in_flight_queues_ = 0;
    if (owed.request == kSetLogBase && well) {
        reply_number(owed.request, 0);
    } else if (owed.wants_answer) {
        reply_number(owed.request, well ? 0 : 1);
    } else if (!well) {
        failed_ = "what the front end asked for could not be done";
    }
}

void Session::reply_number(std::uint32_t request, std::uint64_t value) {
    answer(request, [value](ByteWriter& out) { out.u64(value); });
}

}  // namespace gemel::vhost
