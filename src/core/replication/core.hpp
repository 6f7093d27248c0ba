// Core: what the phases of one engine share, and the order in which they are asked to go on. Internal to this
// folder.
//
// A step hands its input to the phase it belongs to; then settle() asks every phase to do what has become
// possible
// ("level-triggered"): a phase looks at stable facts (superblock on disk, record, session, lease), never at
// the event that made them true. So no edge can be lost, and each "stable before" is one visible comparison.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/prng.hpp"
#include "core/formats/layout.hpp"
#include "core/replication/active_extents.hpp"
#include "core/replication/attach.hpp"
#include "core/replication/authority.hpp"
#include "core/replication/dirty_bitmap.hpp"
#include "core/replication/flush_rounds.hpp"
#include "core/replication/front_requests.hpp"
#include "core/replication/interface.hpp"
#include "core/replication/interval_lock.hpp"
#include "core/replication/join.hpp"
#include "core/replication/lease.hpp"
#include "core/replication/local_flush.hpp"
#include "core/replication/metadata_store.hpp"
#include "core/replication/peer_requests.hpp"
#include "core/replication/peer_session.hpp"
#include "core/replication/resync_source.hpp"
#include "core/replication/resync_target.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

// Who waits for an interval lock: packed into the lock's owner word.
enum class LockOwner : std::uint8_t { front, peer, chunk };
constexpr std::uint64_t lock_owner(LockOwner kind, std::uint32_t index) {
    return static_cast<std::uint64_t>(kind) << 32 | index;
}

class Core {
  public:
    explicit Core(EngineConfig engine_config);

    void step(Instant at, const Input& input, Outputs& outputs);
    Instant next_deadline() const;
    View view() const;

    // -- for the phases
    template <typename Message>
    void emit(Message&& message) {
        out_->emplace_back(std::forward<Message>(message));
    }
    Outputs& outputs() { return *out_; }
    void notice(NoticeKind kind, std::string text) { emit(Notice{kind, std::move(text)}); }
    void again() { again_ = true; }  // something another phase looks at has changed
    void release_lock(IntervalLock::Ticket ticket) { locks.release(ticket, granted_); }
    // This disk failed: it is never used again by this process (F3, F4, M2, K2).
    void fail_local(const std::string& what);
    bool local_failed() const { return local_failed_; }
    // A read of the guest failed here. Blocks that fail again after they were rewritten, or too many of them,
    // and the disk is given up, if the peer's is current (K1).
    void media_error(std::uint64_t offset, std::uint32_t length);
    void block_repaired(std::uint64_t offset, std::uint32_t length);
    // Peer requests are sent under the generation both sides agreed on: a failed superblock stays behind.
    std::uint64_t write_generation() const;
    bool attached() const { return attach.done(); }

    const EngineConfig config;
    Instant now;
    Prng random;

    MetadataStore metadata;
    formats::Layout layout;
    std::unique_ptr<DirtyBitmap> bitmap;     // once attached
    std::unique_ptr<ActiveExtents> extents;  // once attached
    IntervalLock locks;
    Attach attach;
    Authority authority;
    Lease lease;
    PeerSession session;
    FrontRequests front;
    FlushRounds rounds;
    PeerRequests peer_requests;
    LocalFlush local_flush;
    ResyncSource source;
    ResyncTarget target;
    Join join;

  private:
    void dispatch(const Input& input);
    void disk_done(const DiskDone& done);
    void message_in(const PeerMessageIn& in);
    void metadata_written(TagKind kind, std::uint32_t index, IoStatus status);
    void settle();
    void hand_out_locks();
    void idle_work();
    ReplicaState local_state() const;

    static constexpr std::uint32_t kMediaErrorsTolerated = 64;
    struct Repaired {
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
    };
    Outputs* out_ = nullptr;
    std::vector<std::uint64_t> granted_;
    std::vector<std::uint64_t> granted_now_;
    bool again_ = false;
    bool local_failed_ = false;
    std::uint32_t media_errors_ = 0;
    std::uint32_t repairs_ = 0;
    std::array<Repaired, 16> repaired_{};  // the newest ones
    Instant idle_at_ = Instant::never();
};

}  // namespace gemel::replication
