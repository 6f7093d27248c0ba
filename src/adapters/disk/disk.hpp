// Disk: asynchronous I/O on one exclusively opened backing (raw file or block device) through a reactor. A
// request is an object of the caller's that lives until its disk_done(); it ends exactly once, with
// everything done or an error (short reads and writes are continued, W8). Requests run in any order: who
// needs order waits for completion, and a flush covers what was completed before it was started, nothing
// else. A failed flush is reported, never repeated. Zeroing says the truth: where the file system cannot do
// it, zeroes are written. One thread, no allocation per request. Not in it: overlap of requests (the
// engine's), metadata layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "adapters/disk/image_file.hpp"
#include "adapters/ring/reactor.hpp"
#include "base/error.hpp"

namespace gemel::disk {

enum class DiskStatus : std::uint8_t { ok, io_error, out_of_space };

class Disk;

class DiskRequest : private ring::Completion {
  public:
    virtual void disk_done(DiskStatus status) = 0;
    bool busy() const { return busy_; }

  protected:
    ~DiskRequest() override = default;

  private:
    friend class Disk;
    enum class Kind : std::uint8_t { read, write, flush, zero };
    void on_complete(std::int32_t result, std::uint32_t flags) override;

    Disk* disk_ = nullptr;
    Kind kind_ = Kind::read;
    bool busy_ = false;
    bool stable_ = false;
    bool unmap_ = false;
    bool by_writing_ = false;  // zero: the file system cannot, zeroes are being written
    std::byte* memory_ = nullptr;
    std::uint64_t offset_ = 0;
    std::uint64_t left_ = 0;
    std::uint64_t piece_ = 0;  // of what is left, what is with the kernel now
    std::uint32_t tries_ = 0;
};

class Disk {
  public:
    // takes the file; the reactor outlives the disk
    Disk(ring::Reactor& reactor, OpenFile file);
    // only when nothing is in flight
    ~Disk();
    Disk(const Disk&) = delete;
    Disk& operator=(const Disk&) = delete;

    std::uint64_t size_bytes() const { return file_.size_bytes; }
    std::uint32_t alignment() const { return file_.alignment; }
    const OpenFile& file() const { return file_; }
    std::uint32_t in_flight() const { return in_flight_; }

    // offset and length: bytes, inside the backing, multiples of 512
    void read(DiskRequest& request, std::uint64_t offset, std::span<std::byte> memory);
    // stable: the completion means that these bytes survive a power loss
    void write(DiskRequest& request, std::uint64_t offset, std::span<const std::byte> memory, bool stable);
    void flush(DiskRequest& request);
    // The range reads as zero afterwards; unmap: its space may be given back.
    void zero(DiskRequest& request, std::uint64_t offset, std::uint64_t length, bool unmap);

  private:
    friend class DiskRequest;
    void start(DiskRequest& request);
    void start_zero(DiskRequest& request);
    void completed(DiskRequest& request, std::int32_t result);
    void completed_zero(DiskRequest& request, std::int32_t result);
    void progress(DiskRequest& request, std::uint64_t bytes);
    void retry(DiskRequest& request);
    void finish(DiskRequest& request, DiskStatus status);

    ring::Reactor& reactor_;
    OpenFile file_;
    std::uint32_t in_flight_ = 0;
    bool can_zero_range_ = true;
    bool can_punch_hole_ = true;
};

}  // namespace gemel::disk
