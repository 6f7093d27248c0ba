#include "daemons/blockd/blockd.hpp"

#include <algorithm>
#include <mutex>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/config/host_incarnation.hpp"
#include "adapters/ipc/control_messages.hpp"
#include "adapters/log/log.hpp"

namespace gemel::blockd {
namespace {

using nlohmann::json;

constexpr Duration kAddressWait = seconds(5);

std::string_view word(replication::NoticeKind kind) {
    using replication::NoticeKind;
    switch (kind) {
        case NoticeKind::attached: return "attached";
        case NoticeKind::role_changed: return "role_changed";
        case NoticeKind::connection_changed: return "connection_changed";
        case NoticeKind::sync_changed: return "sync_changed";
        case NoticeKind::replica_state_changed: return "replica_state_changed";
        case NoticeKind::frozen: return "frozen";
        case NoticeKind::thawed: return "thawed";
        case NoticeKind::verdict: return "verdict";
        case NoticeKind::resync_finished: return "resync_finished";
        case NoticeKind::split_brain: return "split_brain";
        case NoticeKind::refused: return "refused";
        case NoticeKind::disk_error: return "disk_error";
        case NoticeKind::lease_lapsed: return "lease_lapsed";
        case NoticeKind::lease_resumed: return "lease_resumed";
        case NoticeKind::handover: return "handover";
        case NoticeKind::metadata_unknown: return "metadata_unknown";
        case NoticeKind::over_network: return "over_network";
        case NoticeKind::block_repaired: return "block_repaired";
    }
    return "notice";
}

}  // namespace

Blockd::Blockd(BlockdOptions options) : options_(std::move(options)), process_(SessionId{random_uuid()}) {}

Blockd::~Blockd() {
    renewer_.reset();
    notifier_.store(nullptr);
    control_.reset();
    guard_.reset();
}

Result<std::unique_ptr<Blockd>> Blockd::create(BlockdOptions options) {
    std::unique_ptr<Blockd> made(new Blockd(std::move(options)));
    if (auto ready = made->set_up(); !ready) return tl::unexpected<Error>(ready.error());
    return made;
}

Status Blockd::set_up() {
    const std::size_t each = std::max<std::size_t>(options_.buffer_bytes / options_.reactors >> 20, 8) << 20;
    for (unsigned i = 0; i < options_.reactors; ++i) {
        auto reactor = ring::Reactor::create(
            {.entries = 1024, .buffer_bytes = each, .log = [](const std::string& line) { log::info(line); }});
        if (!reactor) return tl::unexpected<Error>(reactor.error());
        reactors_.push_back(std::move(*reactor));
    }
    if (auto listening = open_listeners(); !listening) return listening;
    ipc::ClientHandlers guard_handlers;
    guard_handlers.connected = [] { log::info("gemel-guard is there"); };
    guard_handlers.disconnected = [] {
        log::warning("gemel-guard is not there: leases are not guarded meanwhile");
    };
    guard_ = std::make_unique<ipc::ControlClient>(options_.config.run_dir + "/guard.sock", "blockd",
                                                  std::move(guard_handlers));
    ipc::ServerHandlers handlers;
    handlers.connected = [this](ipc::ConnectionId, const std::string&) {
        home().post([this] {
            for (auto& [name, entry] : volumes_) {
                entry.reactor->post([volume = entry.volume.get()] { volume->repeat_reports(); });
            }
        });
    };
    handlers.request = [this](ipc::ConnectionId, const json& one, const ipc::Reply& reply) {
        request(one, reply);
    };
    auto control =
        ipc::ControlServer::listen(options_.config.run_dir + "/blockd.sock", "blockd", std::move(handlers));
    if (!control) return tl::unexpected<Error>(control.error());
    control_ = std::move(*control);
    notifier_.store(control_.get());
    std::string why;
    renewer_ = StoreRenewer::create(
        options_.config,
        [this](Instant sent_at, const std::vector<CommittedVolume>& volumes) {
            home().post([this, sent_at, volumes] { renew_at_home(sent_at, volumes); });
        },
        why);
    if (!renewer_) log::warning("leases are renewed by the peer and by clusterd only: " + why);
    return {};
}

void Blockd::renew_at_home(Instant sent_at, const std::vector<CommittedVolume>& volumes) {
    for (const auto& committed : volumes) {
        const auto found = volumes_.find(committed.record.name);
        if (found == volumes_.end() || found->second.closing) continue;
        if (found->second.volume->options().id != committed.record.id) continue;
        if (!committed.record.owner || committed.record.owner->node != options_.config.name) continue;
        found->second.reactor->post(
            [volume = found->second.volume.get(), sent_at, committed] { volume->renew(sent_at, committed); });
    }
}

Status Blockd::open_listeners() {
    for (const auto& link : options_.config.links) {
        const auto open = [&] {
            return LinkListener::open(
                home(), link.address, [this](const VolumeId& volume, int fd) { return route(volume, fd); },
                [](const std::string& line) { log::warning(line); });
        };
        // The kernel lets go of a killed process's sockets when its last I/O has ended, a moment after the
        // process is gone.
        const Instant until = ring::Reactor::read_clock() + kAddressWait;
        auto listener = open();
        while (!listener && listener.error().code == ErrorCode::already_exists &&
               ring::Reactor::read_clock() < until) {
            ::usleep(10'000);
            listener = open();
        }
        if (!listener) {
            return fail(listener.error().code,
                        fmt::format("link {}: {}", link.name, listener.error().message));
        }
        listeners_.push_back(std::move(*listener));
    }
    return {};
}

void Blockd::notify(const json& event) {
    if (auto* server = notifier_.load()) server->notify(event);
}

// A name may be given to another volume later: what is told of a volume carries its id.
VolumeReports Blockd::make_reports(const VolumeId& id) {
    VolumeReports reports;
    const auto tell = [this, id = id.to_string()](std::string_view event, const std::string& volume,
                                                  json members) {
        members["event"] = event;
        members["volume"] = volume;
        members["volume_id"] = id;
        notify(members);
    };
    reports.log = [](const std::string& line) { log::info(line); };
    reports.view = [tell](const std::string& volume, const replication::View& view) {
        tell("view", volume, {{"view", ipc::encode_view(view)}});
    };
    reports.propose = [tell](const std::string& volume, const replication::Propose& propose) {
        tell("propose", volume, ipc::encode_propose(propose));
    };
    reports.need_record = [tell](const std::string& volume, std::uint64_t revision) {
        tell("need_record", volume, {{"at_least_revision", revision}});
    };
    reports.front = [tell](const std::string& volume, std::uint64_t epoch, const std::string& socket,
                           int pid) {
        tell("front", volume,
             {{"epoch", epoch},
              {"socket", socket.empty() ? json(nullptr) : json(socket)},
              {"client_pid", pid}});
    };
    reports.notice = [tell](const std::string& volume, const replication::Notice& notice) {
        log::info(fmt::format("volume {}: {}: {}", volume, word(notice.kind), notice.text));
        tell("notice", volume, {{"kind", word(notice.kind)}, {"text", notice.text}});
    };
    reports.session = [this](const std::string& node, const Incarnation& incarnation, bool up) {
        json links = json::array();
        if (const auto* peer = options_.config.peer(node)) {
            for (const auto& [name, address] : peer->links) links.push_back(name);
        }
        notify({{"event", "session"},
                {"node", node},
                {"incarnation", incarnation.to_string()},
                {"up", up},
                {"links", links}});
    };
    reports.lease = [this](const std::string& volume, const replication::LeaseExtended& lease) {
        // a guard that is away learns from the next one: the lease is extended several times a second
        guard_->request({{"do", "lease"},
                         {"volume", volume},
                         {"epoch", lease.epoch},
                         {"until_ns", lease.until.nanoseconds_since_boot}},
                        seconds(2), [](const Result<json>&) {});
    };
    return reports;
}

// ---- the registry, on the home reactor ----

ring::Reactor& Blockd::emptiest() {
    const auto load = [this](const std::unique_ptr<ring::Reactor>& reactor) {
        return std::ranges::count_if(volumes_,
                                     [&](const auto& each) { return each.second.reactor == reactor.get(); });
    };
    return **std::ranges::min_element(reactors_, {}, load);
}

void Blockd::attach_at_home(VolumeOptions options, ipc::Reply reply) {
    const std::string name = options.name;
    if (stopping_) return reply.error({ErrorCode::unavailable, "gemel-blockd is stopping"});
    if (const auto found = volumes_.find(name); found != volumes_.end()) {
        const auto& there = found->second.volume->options();
        const bool same = there.id == options.id && there.replica == options.replica &&
                          there.path == options.path && there.peer_node == options.peer_node &&
                          there.peer_links == options.peer_links;
        if (same && !found->second.closing) return reply.ok(json::object());
        return reply.error(
            {ErrorCode::already_exists,
             fmt::format("volume {} is attached already, with {}: detach it first", name, there.path)});
    }
    ring::Reactor& reactor = emptiest();
    Entry& entry = volumes_[name];
    entry.reactor = &reactor;
    entry.volume = std::make_unique<Volume>(reactor, options, make_reports(options.id));
    reactor.post([this, name, volume = entry.volume.get(), reply] {
        volume->attach([this, name, reply](const Status& status) {
            if (status) return reply.ok(json::object());
            reply.error(status.error());
            home().post([this, name] { forget(name, {}); });
        });
    });
}

// Closes the volume and takes it out of the registry.
void Blockd::forget(const std::string& name, std::function<void()> then) {
    const auto found = volumes_.find(name);
    if (found == volumes_.end()) {  // gone since it was asked for
        if (then) then();
        return;
    }
    if (then) found->second.when_gone.push_back(std::move(then));
    if (found->second.closing) return;
    found->second.closing = true;
    Volume* volume = found->second.volume.get();
    found->second.reactor->post([this, name, volume] {
        volume->close(!stopping_ || !volume->is_primary(), [this, name] {
            // still on the volume's reactor: it is destroyed there, where its timers are known
            home().post([this, name] {
                Entry entry = std::move(volumes_.at(name));
                volumes_.erase(name);
                ring::Reactor* reactor = entry.reactor;
                reactor->post([volume_left = std::shared_ptr<Volume>(std::move(entry.volume))]() mutable {
                    volume_left.reset();
                });
                for (const auto& waiting : entry.when_gone) waiting();
                if (stopping_) stop_when_empty();
            });
        });
    });
}

void Blockd::detach_at_home(const std::string& name, const ipc::Reply& reply) {
    const auto found = volumes_.find(name);
    if (found == volumes_.end()) return reply.ok(json::object());  // done before
    found->second.reactor->post([this, name, volume = found->second.volume.get(), reply] {
        if (volume->is_primary()) {
            return reply.error({ErrorCode::failed_precondition,
                                fmt::format("volume {} is Primary here: release its lease first", name)});
        }
        home().post([this, name, reply] { forget(name, [reply] { reply.ok(json::object()); }); });
    });
}

void Blockd::status_at_home(const ipc::Reply& reply) {
    struct Gather {
        std::mutex mutex;
        json volumes = json::array();
        std::size_t missing = 0;
    };
    auto gather = std::make_shared<Gather>();
    gather->missing = volumes_.size();
    const auto finish = [this, reply](const json& volumes) {
        reply.ok({{"process", process_.to_string()},
                  {"incarnation", options_.incarnation.to_string()},
                  {"volumes", volumes}});
    };
    if (volumes_.empty()) return finish(gather->volumes);
    for (auto& [name, entry] : volumes_) {
        entry.reactor->post([gather, finish, name = name, volume = entry.volume.get()] {
            json one = ipc::encode_view(volume->view());
            one["volume"] = name;
            one["volume_id"] = volume->options().id.to_string();
            const std::scoped_lock lock(gather->mutex);
            gather->volumes.push_back(std::move(one));
            if (--gather->missing == 0) finish(gather->volumes);
        });
    }
}

bool Blockd::route(const VolumeId& id, int fd) {
    for (auto& [name, entry] : volumes_) {
        if (entry.volume->options().id != id || entry.closing) continue;
        entry.reactor->post([volume = entry.volume.get(), fd] { volume->peer_connection(fd); });
        return true;
    }
    return false;
}

// ---- running and stopping ----

void Blockd::run() {
    for (std::size_t i = 1; i < reactors_.size(); ++i) {
        threads_.emplace_back([reactor = reactors_[i].get()] { reactor->run(); });
    }
    home().run();
    for (std::size_t i = 1; i < reactors_.size(); ++i) reactors_[i]->stop();
    for (auto& thread : threads_) thread.join();
    if (stopped_cleanly_) return;
    // Something is still with the kernel (a frozen volume, a hung disk): objects it writes to must not be
    // destroyed. Leaving at once is what SIGKILL would do, and as safe.
    log::warning("not everything came to an end in time; leaving as after SIGKILL, which is safe");
    std::_Exit(0);
}

void Blockd::stop() {
    home().post([this] { stop_at_home(); });
}

void Blockd::stop_at_home() {
    if (stopping_) return;
    stopping_ = true;
    for (const auto& listener : listeners_) listener->stop();
    stop_limit_ = std::make_unique<ring::Timer>(home(), [this] { home().stop(); });
    stop_limit_->arm(home().now() + seconds(2));
    std::vector<std::string> names;
    for (const auto& [name, entry] : volumes_) names.push_back(name);
    for (const auto& name : names) forget(name, {});
    stop_when_empty();
}

void Blockd::stop_when_empty() {
    if (!volumes_.empty()) return;
    // behind the destruction of the last volume
    for (auto& reactor : reactors_) {
        if (reactor.get() != &home()) continue;
        reactor->post([this] {
            stopped_cleanly_ = true;
            home().stop();
        });
    }
}

}  // namespace gemel::blockd
