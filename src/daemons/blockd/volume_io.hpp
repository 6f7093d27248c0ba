// VolumeIo: executes the engine's disk outputs on one backing and brings each completion back exactly once.
// Knows where metadata and data areas lie; metadata passes through an aligned piece of the pool, because the
// engine's memory is not made for direct I/O. Operations that find no memory wait their turn; what is read to
// be sent to the peer (fetch) takes from the front ends' half of the pool, so that two nodes that send to
// each other always have room for what comes in. One thread.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "adapters/disk/disk.hpp"
#include "core/replication/interface.hpp"

namespace gemel::blockd {

class VolumeIo final {
  public:
    using Complete = std::function<void(const replication::Input&)>;

    VolumeIo(ring::Reactor& reactor, std::unique_ptr<disk::Disk> disk, std::uint64_t data_offset,
             Complete complete);
    ~VolumeIo();
    VolumeIo(const VolumeIo&) = delete;
    VolumeIo& operator=(const VolumeIo&) = delete;

    void start(const replication::DiskRead& output);
    void start(const replication::DiskWrite& output);
    void start(const replication::DiskZero& output);
    void start(const replication::DiskFlush& output);
    void start(const replication::DiskHash& output);
    void start(const replication::DiskFetch& output);
    void start(const replication::ReadMetadata& output);
    void start(const replication::WriteMetadata& output);

    bool idle() const { return in_flight_ == 0; }
    disk::Disk& disk() { return *disk_; }

  private:
    static constexpr std::uint32_t kNoPayload = replication::kNoPayload;
    enum class Purpose : std::uint8_t { plain, hash, fetch, read_metadata, write_metadata };
    struct Operation final : disk::DiskRequest {
        VolumeIo* io = nullptr;
        Purpose purpose = Purpose::plain;
        replication::DiskTag tag = 0;
        std::uint64_t offset = 0;  // of the backing
        std::uint32_t length = 0;
        std::uint32_t piece = kNoPayload;  // own memory: hash, metadata
        std::span<const std::byte> bytes;  // write_metadata
        bool stable = false;
        void disk_done(disk::DiskStatus status) override { io->done(*this, status); }
    };

    // Operations that wait for memory of one share, first come, first served.
    struct Waiting final : ring::BufferWaiter {
        VolumeIo* io = nullptr;
        ring::Share share = ring::Share::link;
        std::deque<Operation*> line;
        bool try_again() override;
    };

    Operation& take(Purpose purpose, replication::DiskTag tag, std::uint64_t offset, std::uint32_t length);
    void start_with_memory(Operation& operation);
    bool get_memory(Operation& operation);
    void done(Operation& operation, disk::DiskStatus status);

    ring::Reactor& reactor_;
    std::unique_ptr<disk::Disk> disk_;
    std::uint64_t data_offset_;
    Complete complete_;
    std::vector<std::unique_ptr<Operation>> operations_;  // as many as were ever needed at once
    std::vector<Operation*> free_;
    Waiting for_own_use_;
    Waiting for_sending_;
    std::uint32_t in_flight_ = 0;
};

}  // namespace gemel::blockd
