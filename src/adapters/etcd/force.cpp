#include "adapters/etcd/force.hpp"

#include <memory>

#include <fmt/format.h>

#include "adapters/etcd/client.hpp"
#include "adapters/etcd/poll.hpp"

namespace gemel::etcd {
namespace {

constexpr Duration kCopyServes = seconds(15);

// The copy serves as soon as a linearizable read works.
Result<std::unique_ptr<Client>> client_of_copy(const Process& process, const http::TlsFiles& tls) {
    const auto address = http::Address::parse(process.client_url());
    if (!address) return tl::unexpected<Error>(address.error());
    auto client = std::make_unique<Client>(ClientOptions{{*address}, tls});
    auto ready = client->get("/", milliseconds(500));
    const auto serves = [&] { return ready || (ready = client->get("/", milliseconds(500))); };
    if (!poll_until(kCopyServes, serves))
        return fail(ErrorCode::timed_out,
                    "the forced copy of the store does not serve: " + ready.error().message);
    return client;
}

// --force-new-cluster drops what the log holds behind the commit index that is on disk. etcd syncs that index
// only with the next entry, so after a power cut the key-value store may have applied what is dropped: it
// then skips as many of the first new entries, which nobody answers. This changes nothing and is answered as
// soon as entries are applied again (no key has revision 1: a store begins with it).
Status wait_until_applying(Client& client) {
    const Transaction nothing{{Compare::revision_is("/", 1)}, {Step::put("/", "")}, {}};
    const auto answered = [&] {
        return client.commit(nothing, milliseconds(200)).outcome == Outcome::compare_failed;
    };
    if (!poll_until(kCopyServes, answered))
        return fail(ErrorCode::timed_out, "the forced copy of the store does not apply what is committed");
    return {};
}

// One commit, whose outcome must be certain.
Status commit_on_copy(const Process& process, const http::TlsFiles& tls, const Transaction& first_commit) {
    const auto client = client_of_copy(process, tls);
    if (!client) return tl::unexpected<Error>(client.error());
    if (auto ok = wait_until_applying(**client); !ok) return ok;
    const auto result = (*client)->commit(first_commit, seconds(10));
    if (result.outcome == Outcome::committed) return {};
    if (result.outcome == Outcome::compare_failed)
        return fail(ErrorCode::failed_precondition, "the store is not what it was when forcing was decided");
    return tl::unexpected<Error>(result.error);
}

}  // namespace

Status force_prepare(const StoreDirectory& directory, const ProcessConfig& config,
                     const Transaction& first_commit) {
    if (Process(config, directory.data(), directory.log()).find() != 0)
        return fail(ErrorCode::failed_precondition,
                    "the store's member still runs: it must be stopped before forcing");
    Process process(config, directory.forcing(), directory.log());
    if (auto ok = process.stop(Duration{}); !ok) return ok;  // left over from a crash of ours
    if (auto ok = directory.make_copy(); !ok) return ok;
    Status done = process.start_forced();
    if (done) done = commit_on_copy(process, config.tls, first_commit);
    // etcd has synced what it answered; ended gently it also finishes its snapshot.
    const Status stopped = process.stop(seconds(3));
    // Who joins a member that was forced must not replay its log, which lacks what was dropped: it would hold
    // other revisions, refuse what the others accept, and vote. Where there is a snapshot it is sent that.
    if (done && stopped && !has_snapshot(directory.forcing()))
        done = fail(ErrorCode::io_error, "the forced copy of the store holds no snapshot; it is not used");
    if (done && stopped) return sync_directory(directory.forcing());
    if (stopped) {
        if (auto removed = directory.delete_copy(); !removed) return removed;
    }
    return done ? stopped : done;
}

Result<RangeResult> read_copy(const StoreDirectory& directory, const ProcessConfig& config,
                              const std::string& prefix) {
    Process process(config, directory.forcing(), directory.log());
    const auto read = [&]() -> Result<RangeResult> {
        if (auto ok = process.start_forced(); !ok) return tl::unexpected<Error>(ok.error());
        const auto client = client_of_copy(process, config.tls);
        if (!client) return tl::unexpected<Error>(client.error());
        return (*client)->get_prefix_serializable(prefix, seconds(5));
    };
    auto stored = read();
    Status cleared = process.stop(Duration{});
    if (cleared) cleared = directory.delete_copy();
    return cleared ? stored : tl::unexpected<Error>(cleared.error());
}

Status force_activate(const StoreDirectory& directory) {
    return directory.activate_copy("before forcing");
}

}  // namespace gemel::etcd
