#include "daemons/blockd/volume_io.hpp"

#include <algorithm>
#include <utility>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::blockd {
namespace {

using replication::IoStatus;

IoStatus translate(disk::DiskStatus status) {
    switch (status) {
        case disk::DiskStatus::ok: return IoStatus::ok;
        case disk::DiskStatus::out_of_space: return IoStatus::out_of_space;
        case disk::DiskStatus::io_error: break;
    }
    return IoStatus::io_error;
}

}  // namespace

VolumeIo::VolumeIo(ring::Reactor& reactor, std::unique_ptr<disk::Disk> disk, std::uint64_t data_offset,
                   Complete complete)
    : reactor_(reactor), disk_(std::move(disk)), data_offset_(data_offset), complete_(std::move(complete)) {
    for_own_use_.io = for_sending_.io = this;
    for_sending_.share = ring::Share::front;
}

VolumeIo::~VolumeIo() {
    INVARIANT(in_flight_ == 0, "a volume is closed after its last disk operation");
    reactor_.buffers().stop_waiting(for_own_use_);
    reactor_.buffers().stop_waiting(for_sending_);
}

VolumeIo::Operation& VolumeIo::take(Purpose purpose, replication::DiskTag tag, std::uint64_t offset,
                                    std::uint32_t length) {
    if (free_.empty()) {
        operations_.push_back(std::make_unique<Operation>());
        operations_.back()->io = this;
        free_.push_back(operations_.back().get());
    }
    Operation& operation = *free_.back();
    free_.pop_back();
    operation.purpose = purpose;
    operation.tag = tag;
    operation.offset = offset;
    operation.length = length;
    operation.piece = kNoPayload;
    ++in_flight_;
    return operation;
}

void VolumeIo::start(const replication::DiskRead& output) {
    Operation& operation = take(Purpose::plain, output.tag, data_offset_ + output.offset, output.length);
    disk_->read(operation, operation.offset, reactor_.buffers().memory(output.payload).first(output.length));
}

void VolumeIo::start(const replication::DiskWrite& output) {
    Operation& operation = take(Purpose::plain, output.tag, data_offset_ + output.offset, output.length);
    disk_->write(operation, operation.offset, reactor_.buffers().memory(output.payload).first(output.length),
                 output.stable);
}

void VolumeIo::start(const replication::DiskZero& output) {
    Operation& operation = take(Purpose::plain, output.tag, data_offset_ + output.offset, 0);
    disk_->zero(operation, operation.offset, output.length, output.unmap);
}

void VolumeIo::start(const replication::DiskFlush& output) {
    disk_->flush(take(Purpose::plain, output.tag, 0, 0));
}

void VolumeIo::start(const replication::DiskHash& output) {
    start_with_memory(take(Purpose::hash, output.tag, data_offset_ + output.offset, output.length));
}

void VolumeIo::start(const replication::DiskFetch& output) {
    start_with_memory(take(Purpose::fetch, output.tag, data_offset_ + output.offset, output.length));
}

void VolumeIo::start(const replication::ReadMetadata& output) {
    start_with_memory(take(Purpose::read_metadata, output.tag, output.offset, output.length));
}

void VolumeIo::start(const replication::WriteMetadata& output) {
    Operation& operation = take(Purpose::write_metadata, output.tag, output.offset,
                                static_cast<std::uint32_t>(output.bytes.size()));
    operation.bytes = output.bytes;
    operation.stable = output.stable;
    start_with_memory(operation);
}

void VolumeIo::start_with_memory(Operation& operation) {
    Waiting& waiting = operation.purpose == Purpose::fetch ? for_sending_ : for_own_use_;
    if (waiting.line.empty() && get_memory(operation)) return;
    waiting.line.push_back(&operation);
    reactor_.buffers().wait(waiting, waiting.share);
}

bool VolumeIo::get_memory(Operation& operation) {
    const bool to_send = operation.purpose == Purpose::fetch;
    const auto piece =
        reactor_.buffers().take(operation.length, to_send ? ring::Share::front : ring::Share::link);
    if (!piece) return false;
    operation.piece = *piece;
    const auto memory = reactor_.buffers().memory(*piece).first(operation.length);
    if (operation.purpose == Purpose::write_metadata) {
        copy_bytes(operation.bytes, memory);
        disk_->write(operation, operation.offset, memory, operation.stable);
    } else {
        disk_->read(operation, operation.offset, memory);
    }
    return true;
}

bool VolumeIo::Waiting::try_again() {
    while (!line.empty() && io->get_memory(*line.front())) line.pop_front();
    return line.empty();
}

void VolumeIo::done(Operation& operation, disk::DiskStatus status) {
    const Purpose purpose = operation.purpose;
    const replication::DiskTag tag = operation.tag;
    const std::uint32_t piece = std::exchange(operation.piece, kNoPayload);
    const std::uint32_t length = operation.length;
    free_.push_back(&operation);
    --in_flight_;
    const auto result = translate(status);
    if (purpose == Purpose::plain || purpose == Purpose::write_metadata) {
        complete_(replication::DiskDone{tag, result});
    } else if (purpose == Purpose::fetch && result == IoStatus::ok) {
        complete_(replication::FetchDone{tag, result, piece});  // the engine's from now on
        return;
    } else if (purpose == Purpose::fetch) {
        complete_(replication::FetchDone{tag, result, kNoPayload});
    } else {
        const auto bytes = reactor_.buffers().memory(piece).first(length);
        if (purpose == Purpose::read_metadata) {
            complete_(replication::MetadataRead{tag, result, bytes});
        } else {
            const auto hash = result == IoStatus::ok ? hash128(bytes) : Hash128{};
            complete_(replication::HashDone{tag, result, hash.high, hash.low});
        }
    }
    if (piece != kNoPayload) reactor_.buffers().release(piece);
}

}  // namespace gemel::blockd
