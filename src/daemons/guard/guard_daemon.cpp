#include "daemons/guard/guard_daemon.hpp"

#include <chrono>
#include <cstdio>
#include <fstream>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "adapters/log/log.hpp"
#include "adapters/system/boot_clock.hpp"

namespace gemel::guard {

using nlohmann::json;

namespace {

constexpr Duration kLookEvery = milliseconds(250);
constexpr Duration kSaveEvery = seconds(1);

tl::unexpected<Error> bad(const std::string& what) {
    return fail(ErrorCode::invalid_argument, "expected " + what);
}

Result<std::uint64_t> number(const json& body, const char* key) {
    if (!body.contains(key) || !body[key].is_number_unsigned()) return bad(std::string(key) + ": a number");
    return body[key].get<std::uint64_t>();
}

template <typename Id>
Result<Id> id(const json& body, const char* key) {
    if (!body.contains(key) || !body[key].is_string()) return bad(std::string(key) + ": an id");
    return Id::parse(body[key].template get<std::string>());
}

const char* word(ha::SeenDomain seen) {
    switch (seen) {
        case ha::SeenDomain::running: return "running";
        case ha::SeenDomain::paused: return "frozen";
        case ha::SeenDomain::gone: return "gone";
    }
    return "gone";
}

}  // namespace

GuardDaemon::GuardDaemon(std::string run_dir, ha::GuardConfig config)
    : run_dir_(std::move(run_dir)), guard_(config) {}
GuardDaemon::~GuardDaemon() = default;

Status GuardDaemon::start() {
    restore();
    ipc::ServerHandlers handlers;
    handlers.request = [this](ipc::ConnectionId, const json& body, ipc::Reply reply) {
        const std::scoped_lock lock(mutex_);
        requests_.push_back({body, std::move(reply)});
        wake_.notify_one();
    };
    auto server = ipc::ControlServer::listen(run_dir_ + "/guard.sock", "guard", std::move(handlers));
    if (!server) return tl::unexpected<Error>(server.error());
    server_ = std::move(*server);
    return {};
}

void GuardDaemon::stop() {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
    wake_.notify_one();
}

void GuardDaemon::run() {
    for (;;) {
        std::vector<Request> requests;
        {
            const Duration until_deadline =
                guard_.next_deadline() == Instant::never() ? kLookEvery : guard_.next_deadline() - boot_now();
            const auto pause = std::max(Duration{0}, std::min(kLookEvery, until_deadline));
            std::unique_lock lock(mutex_);
            wake_.wait_for(lock, std::chrono::nanoseconds(pause.nanoseconds),
                           [this] { return stop_ || !requests_.empty(); });
            if (stop_) break;
            requests.swap(requests_);
        }
        for (const Request& request : requests) handle(request);
        look_at_guests();
        step(ha::GuardTick{});
        if (changed_ && boot_now() - saved_at_ >= kSaveEvery) save();
    }
    save();
}

void GuardDaemon::handle(const Request& request) {
    if (request.body["do"] == "status") {
        request.reply.ok(status());
        return;
    }
    const Status applied = apply(request.body);
    if (applied) {
        request.reply.ok(json::object());
    } else {
        request.reply.error(applied.error());
    }
}

Status GuardDaemon::apply(const json& body) {
    const std::string what = body.value("do", "");
    changed_ = true;
    if (what == "register") return register_guest(body);
    if (what == "unregister") {
        auto guest = id<GuestId>(body, "guest");
        if (!guest) return tl::unexpected<Error>(guest.error());
        registrations_.erase(*guest);
        guests_.erase(*guest);
        step(ha::Forget{*guest});
        return {};
    }
    if (what != "lease" && what != "ownership_lost" && what != "kill_at") {
        return fail(
            ErrorCode::invalid_argument,
            "'" + what +
                "' is unknown: expected register, unregister, lease, ownership_lost, kill_at or status");
    }
    auto epoch = number(body, "epoch");
    if (!epoch) return tl::unexpected<Error>(epoch.error());
    if (what == "lease" && body.contains("volume") && body["volume"].is_string()) {
        // blockd knows volumes by name, and may speak before a guest of theirs is registered.
        const auto known = names_.find(body["volume"].get<std::string>());
        const bool is_id = VolumeId::parse(body["volume"].get<std::string>()).has_value();
        if (known == names_.end() && !is_id) return keep_for_later(body);
        if (!is_id) {
            json by_id = body;
            by_id["volume"] = known->second.to_string();
            return apply(by_id);
        }
    }
    auto volume = id<VolumeId>(body, "volume");
    if (!volume) return tl::unexpected<Error>(volume.error());
    if (what == "ownership_lost") {
        step(ha::OwnershipLost{*volume, *epoch});
        return {};
    }
    if (what == "kill_at" && body.contains("at_ns") && body["at_ns"].is_null()) {
        step(ha::KillAt{*volume, *epoch, Instant::never()});
        return {};
    }
    auto time = number(body, what == "lease" ? "until_ns" : "at_ns");
    if (!time) return tl::unexpected<Error>(time.error());
    const Instant at{static_cast<std::int64_t>(*time)};
    if (what == "kill_at") {
        step(ha::KillAt{*volume, *epoch, at});
        return {};
    }
    leases_[volume->to_string() + "/" + std::to_string(*epoch)] = body;
    step(ha::LeaseUntil{*volume, *epoch, at});
    return {};
}

// The newest lease of a volume whose id is not known yet.
Status GuardDaemon::keep_for_later(const json& body) {
    constexpr std::size_t kMaxKept = 1024;
    const auto name = body["volume"].get<std::string>();
    if (early_leases_.size() >= kMaxKept && !early_leases_.contains(name))
        return fail(ErrorCode::out_of_space, "too many volumes that no guest is registered for");
    early_leases_[name] = body;
    return {};
}

void GuardDaemon::learn_name(const std::string& name, const VolumeId& volume) {
    names_[name] = volume;
    const auto early = early_leases_.extract(name);
    if (early.empty()) return;
    if (const Status applied = apply(early.mapped()); !applied) log::warning(applied.error().message);
}

Status GuardDaemon::register_guest(const json& body) {
    auto guest = id<GuestId>(body, "guest");
    if (!guest) return tl::unexpected<Error>(guest.error());
    auto pid = number(body, "pid");
    if (!pid) return tl::unexpected<Error>(pid.error());
    auto start_time = number(body, "start_time");
    if (!start_time) return tl::unexpected<Error>(start_time.error());
    if (!body.contains("volumes") || !body["volumes"].is_array())
        return bad("volumes: a list of {volume, epoch}");
    ha::Register registration{*guest,
                              body.value("name", guest->to_string()),
                              {},
                              body.value("regrant_possible", false),
                              body.value("incoming", false)};
    for (const json& one : body["volumes"]) {
        if (!one.is_object()) return bad("volumes: a list of {volume, epoch}");
        auto volume = id<VolumeId>(one, "volume");
        auto epoch = number(one, "epoch");
        if (!volume || !epoch) return bad("volumes: a list of {volume, epoch}");
        registration.volumes.push_back({*volume, *epoch});
        if (one.contains("name") && one["name"].is_string())
            learn_name(one["name"].get<std::string>(), *volume);
    }
    ProcessId process{static_cast<std::int32_t>(*pid), *start_time};
    if (process.pid == 0) process = find_qemu(*guest).value_or(ProcessId{});
    guests_[*guest] = Guest{registration.name, process, ha::SeenDomain::running};
    registrations_[*guest] = body;
    const auto seen = look(guests_[*guest].process);
    step(registration);
    guests_[*guest].last_seen = seen;
    step(ha::DomainSeen{*guest, seen});
    return {};
}

json GuardDaemon::status() const {
    json list = json::array();
    for (const ha::GuardView& view : guard_.view()) {
        const auto found = guests_.find(view.guest);
        const bool known = found != guests_.end();
        list.push_back({{"guest", view.guest.to_string()},
                        {"name", view.name},
                        {"pid", known ? found->second.process.pid : 0},
                        {"decision", std::string(to_string(view.state))},
                        {"state", known ? word(found->second.last_seen) : "gone"},
                        {"lease_until_ns", view.until.nanoseconds_since_boot}});
    }
    return {{"guests", list}, {"verified", feeding_}};
}

void GuardDaemon::look_at_guests() {
    for (auto& [guest, entry] : guests_) {
        // Registered before it was started: its process is looked for until it is there.
        if (entry.process.pid == 0) entry.process = find_qemu(guest).value_or(ProcessId{});
        const auto seen = look(entry.process);
        if (seen == entry.last_seen) continue;
        entry.last_seen = seen;
        step(ha::DomainSeen{guest, seen});
    }
}

void GuardDaemon::step(const ha::GuardInput& input) {
    ha::GuardOutputs outputs;
    guard_.step(boot_now(), input, outputs);
    for (const ha::GuardOutput& output : outputs) act(output);
}

void GuardDaemon::act(const ha::GuardOutput& output) {
    const auto signal_guest = [this](const GuestId& guest, int signal, const std::string& line) {
        log::warning(line);
        const auto found = guests_.find(guest);
        if (found != guests_.end() && !send_signal(found->second.process, signal)) {
            log::error(found->second.name +
                       ": the signal could not be delivered; the process is looked at again");
        }
    };
    if (const auto* freeze = std::get_if<ha::FreezeDomain>(&output)) {
        signal_guest(freeze->guest, SIGSTOP, freeze->name + ": frozen: " + freeze->reason);
    } else if (const auto* thaw = std::get_if<ha::ThawDomain>(&output)) {
        signal_guest(thaw->guest, SIGCONT, thaw->name + ": its leases are fresh again, it goes on");
    } else if (const auto* kill = std::get_if<ha::KillDomain>(&output)) {
        signal_guest(kill->guest, SIGKILL, kill->name + ": killed: " + kill->reason);
    } else if (const auto* feed = std::get_if<ha::FeedWatchdog>(&output)) {
        feeding_ = feed->feed;
        if (!feed->feed)
            log::error("cannot verify that a guest without a right to run is stopped: " + feed->reason);
    } else if (const auto* line = std::get_if<ha::GuardLog>(&output)) {
        log::info(line->text);
    }
}

void GuardDaemon::save() {
    json state{{"schema", 1}, {"guests", json::array()}, {"leases", json::array()}};
    for (const auto& [guest, registration] : registrations_) state["guests"].push_back(registration);
    for (const auto& [key, lease] : leases_) state["leases"].push_back(lease);
    const std::string path = run_dir_ + "/guard.state";
    {
        std::ofstream file(path + ".new", std::ios::trunc);
        file << state.dump();
        if (!file) {
            log::error(
                "cannot write " + path +
                ".new: a restart of the guard would forget its guests until they are registered again");
            return;
        }
    }
    if (std::rename((path + ".new").c_str(), path.c_str()) != 0) log::error("cannot replace " + path);
    changed_ = false;
    saved_at_ = boot_now();
}

void GuardDaemon::restore() {
    std::ifstream file(run_dir_ + "/guard.state");
    if (!file) return;
    const json state = json::parse(file, nullptr, false);
    if (!state.is_object() || state.value("schema", 0) != 1) {
        log::warning(run_dir_ +
                     "/guard.state is unreadable: guests are guarded again once they are registered again");
        return;
    }
    // Leases first: a guest must not be frozen because its lease was told a moment later.
    for (const char* list : {"leases", "guests"}) {
        for (const json& body : state.value(list, json::array())) {
            if (const Status applied = apply(body); !applied)
                log::warning("guard.state: " + applied.error().message);
        }
    }
    log::info("goes on guarding " + std::to_string(guests_.size()) + " guests");
}

}  // namespace gemel::guard
