// Disk: one host's backing device, as a raw device with a volatile cache behaves at its worst. What was not
// flushed is lost, torn at 512 bytes or kept, write by write, at a power cut, and overlapping unflushed
// writes may survive in any combination. I/O of a process that died still lands later (scenario H38); a
// failed flush forgets what it covered and the next one succeeds (F4). Completions go to the process that
// submitted, if it still lives. The disk is also a checker of two things only it sees: no two overlapping
// writes in flight together (promise D5) and no metadata buffer changed while it is written.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/world/event_queue.hpp"
#include "sim/world/image.hpp"
#include "sim/world/payload.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

enum class DiskOutcome : std::uint8_t { ok, io_error };

// Receives completions for one process life.
class DiskClient {
  public:
    virtual void disk_done(std::uint64_t tag, DiskOutcome outcome) = 0;
    virtual void metadata_read_done(std::uint64_t tag, DiskOutcome outcome,
                                    std::span<const std::byte> bytes) = 0;
    virtual void hash_done(std::uint64_t tag, DiskOutcome outcome, std::uint64_t high, std::uint64_t low) = 0;

  protected:
    ~DiskClient() = default;
};

// What a disk may do wrong; set by the fault injector, cleared by healing.
struct DiskFaults {
    std::uint32_t slow_factor = 1;
    bool fail_next_flush = false;
    bool fail_next_write = false;
    bool fail_next_metadata_write = false;
    bool dead = false;               // every operation fails
    bool misdirect_next = false;     // the next metadata write lands on another block as well
    bool hang_next = false;          // the next data write takes seconds
    std::uint32_t short_writes = 0;  // so many data writes end early: their driver submits the rest again
    std::int64_t bad_sector = -1;    // reads that touch it fail until it is written
};

class Disk final : public EventSink {
  public:
    using Violation = std::function<void(const std::string& promise, const std::string& what)>;

    Disk(EventQueue& queue, Trace& trace, Prng random, PayloadPool& payloads, std::uint32_t node,
         std::uint64_t metadata_bytes, std::uint64_t data_bytes, Violation violation);

    // -- the process's side; `process` numbers a process life, whose client must outlive it or be forgotten
    void attach(std::uint64_t process, DiskClient& client);
    void read(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length,
              std::uint32_t payload);
    void write(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length,
               std::uint32_t payload, bool stable);
    void zero(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint64_t length);
    void flush(std::uint64_t process, std::uint64_t tag);
    void hash(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length);
    void read_metadata(std::uint64_t process, std::uint64_t tag, std::uint64_t offset, std::uint32_t length);
    void write_metadata(std::uint64_t process, std::uint64_t tag, std::uint64_t offset,
                        std::span<const std::byte> bytes, bool stable);

    // -- the world's side
    void process_died();  // its I/O goes on, its completions go nowhere
    void power_cut();     // nothing goes on; what was not stable is lost, torn or kept
    void pause(bool paused);
    // operations of dead processes still on their way: the next process waits for the lock until there are
    // none
    bool outlived_io() const { return outlived_ > 0; }
    DiskFaults& faults() { return faults_; }
    // write errors, failed flushes and misdirected writes since the last restore(): such a replica may be
    // lost for good
    std::uint64_t wounds() const { return wounds_; }
    // foreign writes that landed on its metadata since then: what they hit is lost, and the disk does not say
    // so
    std::uint64_t strays() const { return strays_; }
    // anything at all went wrong with it: a wound, or a read that failed
    bool hurt() const { return wounds_ > 0 || read_errors_ > 0; }

    // -- the checkers' side
    const Image& current() const { return current_; }
    const Image& stable() const { return stable_; }
    Image copy_of_stable() const { return stable_; }
    void restore(const Image& image);  // while the host is off: an old image, or another's
    std::uint64_t unstable_writes() const { return log_.size() - log_start_; }
    // A data write in that range is in flight, or landed and is not stable, and would change what is: a block
    // that cannot be read is rewritten with the bytes it had (seed 41315), and whether that lands is the
    // same.
    bool unstable_in(std::uint64_t offset, std::uint64_t length) const;
    // raised whenever the stable metadata changes
    std::uint64_t stable_metadata_version() const { return stable_metadata_version_; }
    // how often another image took this one's place
    std::uint64_t restores() const { return restores_; }

    void on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) override;

  private:
    enum class Kind : std::uint8_t { read, write, zero, flush, hash, read_metadata, write_metadata };
    // one write, as it will be applied
    struct Change {
        std::uint64_t offset = 0;  // bytes
        std::uint64_t length = 0;
        std::vector<Stamp> stamps;     // data
        std::vector<std::byte> bytes;  // metadata
        bool metadata = false;
        bool gone = false;  // already stable, or forgotten by a failed flush
    };
    struct Operation {
        Kind kind = Kind::read;
        bool active = false;
        bool stable = false;
        DiskOutcome outcome = DiskOutcome::ok;
        std::uint64_t process = 0;
        std::uint64_t tag = 0;
        std::uint64_t covers = 0;  // flush: changes with a number below
        PayloadRef payload;
        const std::byte* source = nullptr;  // metadata write: the submitter's buffer
        Change change;
        std::uint32_t life = 0;
    };

    bool changes_stable(const Change& change, std::span<const Stamp> stamps) const;
    std::uint32_t start(Kind kind, std::uint64_t process, std::uint64_t tag, std::uint64_t offset,
                        std::uint64_t length);
    void schedule(std::uint32_t index);
    void check_overlap(const Operation& operation, std::uint32_t self);
    void decide_outcome(Operation& operation);
    void finish(std::uint32_t index);
    bool cut_short(std::uint32_t index);
    void land(Operation& operation);
    void fill_from_payload(Operation& operation);
    void finish_flush(Operation& operation);
    void deliver(Operation& operation);
    void apply(Image& image, const Change& change);
    void apply_torn(Image& image, const Change& change);
    void settle_overlapping(const Change& change);
    void maybe_keep(const Change& change);
    void trim_log();
    bool touches_bad_sector(const Operation& operation) const;

    EventQueue& queue_;
    Trace& trace_;
    Prng random_;
    PayloadPool& payloads_;
    std::uint32_t node_;
    Violation violation_;
    Image current_;
    Image stable_;
    std::vector<Change> log_;  // landed and not stable, oldest first, from log_start_
    std::size_t log_start_ = 0;
    std::uint64_t log_base_ = 0;  // number of log_[0]
    std::vector<Operation> operations_;
    std::vector<std::uint32_t> free_;
    std::vector<std::uint32_t> held_;  // finished while paused
    std::uint64_t process_ = 0;        // the one alive, 0: none
    DiskClient* client_ = nullptr;
    std::uint32_t outlived_ = 0;
    bool paused_ = false;
    DiskFaults faults_;
    std::uint64_t wounds_ = 0;
    std::uint64_t strays_ = 0;
    std::uint64_t read_errors_ = 0;
    std::uint64_t stable_metadata_version_ = 1;
    std::uint64_t restores_ = 0;
    std::vector<std::byte> read_buffer_;
};

}  // namespace gemel::sim
