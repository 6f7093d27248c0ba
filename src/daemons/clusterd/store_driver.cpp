#include "daemons/clusterd/store_driver.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/etcd/client.hpp"
#include "adapters/etcd/force.hpp"
#include "adapters/etcd/join.hpp"
#include "adapters/etcd/process.hpp"
#include "adapters/etcd/store_directory.hpp"
#include "adapters/etcd/watcher.hpp"
#include "adapters/log/log.hpp"
#include "core/formats/records_json.hpp"
#include "daemons/clusterd/lease_keeper.hpp"
#include "daemons/clusterd/loop.hpp"
#include "daemons/clusterd/store_health.hpp"

namespace gemel::clusterd {
namespace {

// Short: an unknown outcome is read back, and what waits behind it may be a takeover.
constexpr Duration kTxnTimeout = seconds(1);
constexpr Duration kReadTimeout = seconds(1);
constexpr Duration kMemberReadTimeout = milliseconds(800);
constexpr Duration kOwnStoreFirst = seconds(10);
constexpr int kOwnReadsBeforeCopy = 3;  // a member that forms a quorum at once is left alone
constexpr Duration kMemberTimeout = seconds(5);

etcd::Transaction to_etcd(const cluster::Txn& txn) {
    etcd::Transaction out;
    for (const auto& compare : txn.compares) {
        etcd::Compare one;
        one.key = compare.key;
        one.number = static_cast<std::int64_t>(compare.revision);
        switch (compare.kind) {
            case cluster::CompareKind::mod_revision: one.target = etcd::Compare::Target::mod_revision; break;
            case cluster::CompareKind::create_revision:
                one.target = etcd::Compare::Target::create_revision;
                break;
            case cluster::CompareKind::value:
                one.target = etcd::Compare::Target::value;
                one.value = compare.value;
                break;
        }
        out.compares.push_back(std::move(one));
    }
    for (const auto& put : txn.puts)
        out.then.push_back(etcd::Step::put(put.key, put.value, static_cast<std::int64_t>(put.lease)));
    for (const auto& key : txn.deletes) out.then.push_back(etcd::Step::remove(key));
    return out;
}

cluster::KeyValue to_core(const etcd::KeyValue& pair) {
    return {pair.key, pair.value, static_cast<std::uint64_t>(pair.mod_revision),
            static_cast<std::uint64_t>(pair.create_revision)};
}

std::vector<cluster::KeyValue> to_core(const std::vector<etcd::KeyValue>& pairs) {
    std::vector<cluster::KeyValue> out;
    out.reserve(pairs.size());
    for (const auto& pair : pairs) out.push_back(to_core(pair));
    return out;
}

template <typename... Ts>
struct Overloaded : Ts... {
    using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

}  // namespace

struct StoreDriver::Impl {
    Impl(const Settings& given, Sink to)
        : settings(given),
          sink(std::move(to)),
          directory(given.file.state_dir),
          process(process_config(), directory.data(), directory.log()),
          transactions(client_options()),
          reads(client_options()),
          own(options_of(settings.file.client_url)),
          member_commands(client_options()),
          lease(client_options(), [this](std::uint64_t id) { sink(cluster::LeaseLost{id}); }) {}

    etcd::ProcessConfig process_config() const {
        etcd::ProcessConfig out;
        out.name = settings.file.name;
        out.client_url = settings.file.client_url;
        out.peer_url = settings.file.peer_url;
        out.cluster_token = settings.file.cluster.to_string();
        out.tls = settings.tls;
        return out;
    }
    // of one member alone
    etcd::ClientOptions options_of(const std::string& client_url) const {
        etcd::ClientOptions out;
        out.tls = settings.tls;
        if (const auto address = http::Address::parse(client_url)) out.endpoints.push_back(*address);
        return out;
    }
    etcd::ClientOptions client_options() const {
        etcd::ClientOptions out;
        out.tls = settings.tls;
        out.members = members;
        return out;
    }
    // A store on our own disk tells who its voters are; another node of the file may hold another history of
    // it. Only when ours tells nothing for a while are the others asked.
    std::vector<http::Address> members_at_first() const {
        const auto own_address = http::Address::parse(settings.file.client_url);
        if (settings.file.voter && directory.present() && own_address) return {*own_address};
        return members_in_file();
    }
    void ask_others_if_ours_is_silent() {
        if (voters_known || boot_now() - made_at < kOwnStoreFirst) return;
        voters_known = true;
        members->set(members_in_file());
    }
    // Own member first, then the others of node.toml, until the committed voters are known.
    std::vector<http::Address> members_in_file() const {
        std::vector<std::string> urls;
        for (const auto& member : settings.file.members) urls.push_back(member.client_url);
        return preferring_own(urls);
    }
    std::vector<http::Address> preferring_own(const std::vector<std::string>& urls) const {
        std::vector<http::Address> out;
        const auto add = [&](const std::string& url) {
            const auto address = http::Address::parse(url);
            if (address && std::find(out.begin(), out.end(), *address) == out.end()) out.push_back(*address);
        };
        if (settings.file.voter) add(settings.file.client_url);
        for (const auto& url : urls) add(url);
        return out;
    }
    void follow_voters(const etcd::KeyValue& pair);
    void run_transaction(const cluster::SubmitTxn& request);
    void run_read(const cluster::StoreRead& request);
    void run_own_read(const cluster::StoreRead& request);
    void run_member_read(const cluster::StoreRead& request);
    void stored_read_done(const cluster::StoreRead& request, const std::optional<etcd::RangeResult>& stored);
    std::optional<etcd::RangeResult> look_at_disk(const std::string& prefix);
    void bootstrap_done();
    Status run_command(const cluster::StoreCommandKind& command);
    Status start_store();
    Status force(const cluster::ForcePrepare& command);
    Status join_store(const std::string& initial_cluster) const {
        return etcd::join_store(directory, process_config(), initial_cluster);
    }
    etcd::WatcherCallbacks watch_callbacks();
    // After our store was replaced the machine begins with empty tables, also where the watch (of another
    // member) did not notice anything.
    void read_again() {
        if (watcher) watcher->restart();
    }

    const Settings& settings;
    Sink sink;
    etcd::StoreDirectory directory;
    etcd::Process process;
    std::shared_ptr<etcd::MemberList> members =
        std::make_shared<etcd::MemberList>(members_at_first(), std::chrono::hours(1));
    etcd::Client transactions;
    etcd::Client reads;
    etcd::Client own;  // our own member only
    etcd::Client member_commands;
    LeaseKeeper lease;
    const Instant made_at = boot_now();
    std::atomic<bool> voters_known = false;
    bool have_snapshot = false;                // watcher's thread
    bool bootstrap_looked_at = false;          // transaction worker
    int own_reads_failed = 0;                  // own read worker
    std::optional<etcd::RangeResult> on_disk;  // command worker: read from a copy; it does not change
    std::unique_ptr<etcd::Watcher> watcher;
    std::unique_ptr<StoreHealthProbe> health;
    // Last: they are stopped first.
    Worker transaction_worker{64};
    Worker read_worker{32};
    Worker command_worker{32};
    Worker own_read_worker{4};  // gives work to the one above
};

void StoreDriver::Impl::run_transaction(const cluster::SubmitTxn& request) {
    const auto result = transactions.commit(to_etcd(request.txn), kTxnTimeout);
    if (watcher && result.outcome == etcd::Outcome::committed) watcher->seen(result.header.revision);
    cluster::TxnDone done{request.tag, cluster::TxnOutcome::unknown,
                          static_cast<std::uint64_t>(result.header.revision)};
    switch (result.outcome) {
        case etcd::Outcome::committed:
            done.outcome = cluster::TxnOutcome::committed;
            bootstrap_done();
            break;
        case etcd::Outcome::compare_failed: done.outcome = cluster::TxnOutcome::compare_failed; break;
        case etcd::Outcome::not_done:  // the machine knows three; it resolves this one by reading
        case etcd::Outcome::unknown:
            log::debug("store: transaction unresolved: " + result.error.message);
            break;
    }
    sink(done);
}

// A new store may be begun only while this file is there; the first commit ends that for good.
void StoreDriver::Impl::bootstrap_done() {
    if (bootstrap_looked_at) return;
    bootstrap_looked_at = true;
    if (::unlink(settings.bootstrap_pending().c_str()) == 0) {
        [[maybe_unused]] const auto synced = etcd::sync_directory(settings.file.state_dir);
        log::info("store: first commit; a new store will not be begun here again");
    }
}

// What our own member has on its disk, quorum or not; nobody else is asked. A member that has met no quorum
// since it was started does not answer: then a copy of it is read.
void StoreDriver::Impl::run_own_read(const cluster::StoreRead& request) {
    if (request.keys.size() != 1 || !settings.file.voter) return stored_read_done(request, {});
    if (auto stored = own.get_prefix_serializable(request.keys.front(), kReadTimeout))
        return stored_read_done(request, std::move(*stored));
    ++own_reads_failed;
    const bool taken = own_reads_failed >= kOwnReadsBeforeCopy && command_worker.post([this, request] {
        if (!on_disk) on_disk = look_at_disk(request.keys.front());
        stored_read_done(request, on_disk);
    });
    if (!taken) stored_read_done(request, {});
}

// What another voter's member has applied: one attempt, of that member alone.
void StoreDriver::Impl::run_member_read(const cluster::StoreRead& request) {
    for (const auto& member : settings.file.members) {
        const auto options = options_of(member.client_url);
        if (member.name != request.member || options.endpoints.empty() || request.keys.size() != 1) continue;
        etcd::Client client(options);
        if (auto stored = client.get_prefix_serializable(request.keys.front(), kMemberReadTimeout))
            return stored_read_done(request, std::move(*stored));
    }
    stored_read_done(request, {});
}

void StoreDriver::Impl::stored_read_done(const cluster::StoreRead& request,
                                         const std::optional<etcd::RangeResult>& stored) {
    cluster::ReadDone done;
    done.tag = request.tag;
    done.sent_at = boot_now();
    done.ok = stored.has_value();
    if (stored) {
        done.revision = static_cast<std::uint64_t>(stored->header.revision);
        for (const auto& pair : stored->pairs) done.values.push_back(to_core(pair));
    }
    sink(done);
}

// The member is stopped only while it is copied; it forms a quorum as before when the others come.
std::optional<etcd::RangeResult> StoreDriver::Impl::look_at_disk(const std::string& prefix) {
    if (!directory.present() || directory.has_copy()) return std::nullopt;  // a forcing is under way
    const bool ran = process.find() != 0;
    Status copied = process.stop(milliseconds(300));
    if (copied) copied = directory.make_copy();
    if (ran) {
        if (auto ok = process.start({settings.initial_cluster(), false}); !ok)
            log::warning("store: " + ok.error().message);
    }
    auto stored = copied ? etcd::read_copy(directory, process_config(), prefix)
                         : Result<etcd::RangeResult>(tl::unexpected<Error>(copied.error()));
    if (!stored) {
        log::warning("store: its copy on disk cannot be read: " + stored.error().message);
        return std::nullopt;
    }
    log::info(
        fmt::format("store: no quorum yet; revision {} is on this node's disk", stored->header.revision));
    return std::move(*stored);
}

void StoreDriver::Impl::run_read(const cluster::StoreRead& request) {
    if (!request.member.empty()) return run_member_read(request);
    if (request.serializable) return run_own_read(request);
    std::vector<etcd::Step> all;
    for (const auto& key : request.keys) {
        etcd::Step step = etcd::Step::get(key);
        if (request.prefix) step.range_end = etcd::prefix_end(key);
        all.push_back(std::move(step));
    }
    cluster::ReadDone done;
    done.tag = request.tag;
    done.sent_at = boot_now();
    const auto result = reads.read(all, kReadTimeout);
    done.ok = result.outcome == etcd::Outcome::committed;
    if (watcher && done.ok) {
        watcher->seen(result.header.revision);
        watcher->look();
    }
    done.revision = static_cast<std::uint64_t>(result.header.revision);
    for (const auto& range : result.ranges)
        for (const auto& pair : range) done.values.push_back(to_core(pair));
    sink(done);
}

// Once known, only the committed voters are asked: node.toml may name a member that was removed, or one of a
// store that was left behind by a forcing.
void StoreDriver::Impl::follow_voters(const etcd::KeyValue& pair) {
    if (pair.key != keys::kCluster) return;
    const auto record = decode<ClusterRecord>(pair.value);
    if (!record) return;  // the machine says what is wrong with it
    std::vector<std::string> urls;
    for (const auto& voter : record->voters) urls.push_back(voter.client_url);
    const auto wanted = preferring_own(urls);
    if (wanted.empty()) return;
    voters_known = true;
    members->set(wanted);
}

etcd::WatcherCallbacks StoreDriver::Impl::watch_callbacks() {
    return {
        [this](const etcd::RangeResult& all) {
            have_snapshot = true;
            for (const auto& pair : all.pairs) follow_voters(pair);
            sink(cluster::TableSnapshot{static_cast<std::uint64_t>(all.header.revision), to_core(all.pairs)});
        },
        [this](const std::vector<etcd::WatchEvent>& events, const etcd::Header& header) {
            cluster::WatchEvents out;
            out.revision = static_cast<std::uint64_t>(header.revision);
            for (const auto& event : events) {
                if (!event.removed) follow_voters(event.pair);
                const auto pair = to_core(event.pair);
                out.changes.push_back({pair.key, event.removed ? std::nullopt : std::optional(pair.value),
                                       pair.mod_revision, pair.create_revision});
            }
            sink(out);
        },
        [this](const Error& why) {
            if (have_snapshot) log::info("store: the watch ended: " + why.message);
            if (have_snapshot) sink(cluster::WatchLost{});
            have_snapshot = false;
        }};
}

Status StoreDriver::Impl::start_store() {
    if (!settings.file.voter) return {};
    if (process.find() != 0) return {};
    if (auto ok = directory.recover(); !ok) return ok;
    const bool present = directory.present();
    if (!present && !std::filesystem::exists(settings.bootstrap_pending()))
        return fail(ErrorCode::failed_precondition,
                    "there is no store here and none may be begun; waiting to be added by the cluster");
    return process.start({settings.initial_cluster(), false});
}

Status StoreDriver::Impl::force(const cluster::ForcePrepare& command) {
    // The member holds nothing that a kill could lose: what it answered is synced.
    if (auto ok = process.stop(milliseconds(300)); !ok) return ok;
    return etcd::force_prepare(directory, process_config(), to_etcd(command.first_commit));
}

Status StoreDriver::Impl::run_command(const cluster::StoreCommandKind& command) {
    on_disk.reset();
    return std::visit(Overloaded{
                          [&](const cluster::StartStore&) { return start_store(); },
                          [&](const cluster::StopStore&) { return process.stop(seconds(5)); },
                          [&](const cluster::SetStoreAside& aside) -> Status {
                              if (auto ok = process.stop(seconds(2)); !ok) return ok;
                              // Its log goes with it: what it says about a removed member is not about the
                              // next one.
                              std::error_code ignored;
                              std::filesystem::rename(directory.log(), directory.log().string() + ".old",
                                                      ignored);
                              const Status done = directory.set_aside(aside.reason);
                              members->set(members_in_file());
                              read_again();
                              return done;
                          },
                          [&](const cluster::JoinStore& join) -> Status {
                              if (process.find() != 0) return {};
                              const Status done = join_store(join.initial_cluster);
                              read_again();
                              return done;
                          },
                          [&](const cluster::ForcePrepare& prepare) { return force(prepare); },
                          [&](const cluster::ForceActivate&) -> Status {
                              if (auto ok = etcd::force_activate(directory); !ok) return ok;
                              if (auto ok = process.start({settings.initial_cluster(), false}); !ok)
                                  return ok;
                              read_again();
                              return {};
                          },
                          [&](const cluster::ForceAbort&) -> Status {
                              if (auto ok = directory.delete_copy(); !ok) return ok;
                              return start_store();
                          },
                          [&](const cluster::AddLearner& add) -> Status {
                              const auto added = member_commands.add_learner(add.peer_url, kMemberTimeout);
                              return added ? Status() : Status(tl::unexpected<Error>(added.error()));
                          },
                          [&](const cluster::PromoteMember& promote) {
                              return member_commands.promote(promote.id, kMemberTimeout);
                          },
                          [&](const cluster::RemoveMember& remove) {
                              return member_commands.remove_member(remove.id, kMemberTimeout);
                          },
                          [&](const cluster::WriteMemberNonce& nonce) {
                              return directory.write_nonces({nonce.current, nonce.next});
                          },
                      },
                      command);
}

StoreDriver::StoreDriver(const Settings& settings, Sink sink)
    : impl_(std::make_unique<Impl>(settings, std::move(sink))) {}

StoreDriver::~StoreDriver() {
    impl_->transactions.cancel();
    impl_->reads.cancel();
    impl_->own.cancel();
    impl_->member_commands.cancel();
}

Result<cluster::BootFacts> StoreDriver::boot_facts() {
    cluster::BootFacts out;
    out.store_running = impl_->process.find() != 0;
    if (!out.store_running) {
        // A copy that was being forced is of no use without the process that worked on it.
        if (auto ok =
                etcd::Process(impl_->process_config(), impl_->directory.forcing(), impl_->directory.log())
                    .stop(Duration{});
            !ok)
            return tl::unexpected<Error>(ok.error());
        if (auto ok = impl_->directory.recover(); !ok) return tl::unexpected<Error>(ok.error());
    }
    out.store_present = impl_->directory.present();
    const auto nonces = impl_->directory.read_nonces();
    if (!nonces) return tl::unexpected<Error>(nonces.error());
    if (*nonces) {
        out.member_nonce = (*nonces)->current;
        out.next_member_nonce = (*nonces)->next;
    }
    return out;
}

void StoreDriver::start() {
    etcd::WatcherOptions options;
    options.client = impl_->client_options();
    options.prefix = std::string(keys::kRoot);
    impl_->watcher = std::make_unique<etcd::Watcher>(std::move(options), impl_->watch_callbacks());
    impl_->health =
        std::make_unique<StoreHealthProbe>(impl_->settings, impl_->process, impl_->directory.log().string(),
                                           impl_->members, [this](const cluster::StoreHealth& health) {
                                               impl_->ask_others_if_ours_is_silent();
                                               impl_->watcher->look();
                                               impl_->sink(health);
                                           });
}

void StoreDriver::handle(const cluster::SubmitTxn& request) {
    if (!impl_->transaction_worker.post([this, request] { impl_->run_transaction(request); }))
        impl_->sink(cluster::TxnDone{request.tag, cluster::TxnOutcome::unknown, 0});
}

void StoreDriver::handle(const cluster::StoreRead& request) {
    // what our own member has does not wait for reads that wait for a quorum
    Worker& worker = request.serializable ? impl_->own_read_worker : impl_->read_worker;
    if (!worker.post([this, request] { impl_->run_read(request); }))
        impl_->sink(cluster::ReadDone{request.tag, false, boot_now(), 0, {}});
}

void StoreDriver::handle(const cluster::ReadTables&) {
    if (impl_->watcher) impl_->watcher->restart();
}

void StoreDriver::handle(const cluster::GrantLease& request) {
    impl_->lease.grant(request.ttl_s, [this](std::uint64_t id) { impl_->sink(cluster::LeaseGranted{id}); });
}

void StoreDriver::handle(const cluster::RevokeLease& request) {
    impl_->lease.revoke(request.id);
}

void StoreDriver::handle(const cluster::StoreCommand& request) {
    const bool taken = impl_->command_worker.post([this, request] {
        const Status done = impl_->run_command(request.command);
        if (impl_->health) impl_->health->look_now();
        impl_->sink(
            cluster::StoreCommandDone{request.tag, done.has_value(), done ? "" : done.error().message});
    });
    if (!taken) impl_->sink(cluster::StoreCommandDone{request.tag, false, "too many store commands at once"});
}

}  // namespace gemel::clusterd
