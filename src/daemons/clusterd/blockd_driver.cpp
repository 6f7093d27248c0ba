#include "daemons/clusterd/blockd_driver.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/ipc/control_messages.hpp"
#include "adapters/log/log.hpp"

namespace gemel::clusterd {
namespace {

using nlohmann::json;

constexpr Duration kShort = seconds(5);
constexpr Duration kLong = seconds(60);  // making, opening and closing a volume

std::string text(const json& object, const char* field) {
    const auto found = object.find(field);
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
std::uint64_t number(const json& object, const char* field) {
    const auto found = object.find(field);
    return found != object.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

}  // namespace

BlockdDriver::BlockdDriver(const Settings& settings, Loop& loop, Sink sink,
                           std::function<const cluster::Tables&()> tables)
    : settings_(settings), loop_(loop), sink_(std::move(sink)), tables_(std::move(tables)) {}

void BlockdDriver::start() {
    ipc::ClientHandlers handlers;
    handlers.connected = [this] { loop_.post([this] { on_connected(); }); };
    handlers.disconnected = [this] { loop_.post([this] { on_disconnected(); }); };
    handlers.event = [this](const json& event) { loop_.post([this, event] { on_event(event); }); };
    client_ =
        std::make_unique<ipc::ControlClient>(settings_.run("blockd.sock"), "clusterd", std::move(handlers));
}

void BlockdDriver::request(json body, Duration timeout, Answer answer) {
    const auto life = life_;
    client_->request(std::move(body), timeout, [this, life, answer = std::move(answer)](Result<json> result) {
        loop_.post([this, life, answer, result = std::move(result)] {
            if (life == life_ || !result) answer(result);
        });
    });
}

void BlockdDriver::done(cluster::Tag tag, const Result<json>& answer) {
    cluster::BlockdDone out{tag, answer.has_value(), "", ""};
    if (!answer) {
        out.error = answer.error().message;
        out.error_code = std::string(to_string(answer.error().code));
    }
    sink_(out);
}

// ---- connection and events ----

void BlockdDriver::on_connected() {
    ++life_;
    connected_at_ = boot_now();
    fronts_.clear();
    asked_at_ = {};
    asking_ = false;
    tick(boot_now());
}

void BlockdDriver::on_disconnected() {
    ++life_;
    std::erase_if(volumes_, [](const auto& each) { return each.second.detaching; });
    for (auto& [id, volume] : volumes_) volume.attached = volume.attaching = false;
    if (up_) sink_(cluster::BlockdDown{});
    up_ = false;
}

void BlockdDriver::on_status(const Result<json>& answer) {
    asking_ = false;
    if (!answer) {
        log::warning("blockd does not tell its status: " + answer.error().message);
        return;
    }
    const auto process = SessionId::parse(text(*answer, "process"));
    if (!process) {
        log::error("blockd's status names no process; is it of another version?");
        return;
    }
    if (!up_) sink_(cluster::BlockdUp{*process});
    up_ = true;
    for (json view : answer->value("volumes", json::array())) {
        if (!view.is_object()) continue;
        const std::string name = text(view, "volume");
        const auto id = VolumeId::parse(text(view, "volume_id"));
        view.erase("volume");
        view.erase("volume_id");
        if (id) on_view(*id, name, view);
    }
}

// Views come at changes; the machine wants to see each volume once a second, and that blockd answers.
void BlockdDriver::tick(Instant now) {
    constexpr Duration kInterval = seconds(1);
    if (!client_ || !client_->connected() || asking_ || now - asked_at_ < kInterval) return;
    asked_at_ = now;
    asking_ = true;
    request({{"do", "status"}}, kShort, [this](const Result<json>& answer) { on_status(answer); });
}

void BlockdDriver::on_event(const json& event) {
    const std::string kind = text(event, "event");
    if (kind == "session") {
        const auto incarnation = Incarnation::parse(text(event, "incarnation"));
        cluster::BlockdSession session{text(event, "node"), incarnation.value_or(Incarnation{}), false, {}};
        session.up = event.value("up", false);
        for (const auto& link : event.value("links", json::array()))
            if (link.is_string()) session.links.push_back(link.get<std::string>());
        sink_(session);
        return;
    }
    const auto id = VolumeId::parse(text(event, "volume_id"));
    if (!id) {
        log::error(fmt::format("blockd's event {} names no volume; is it of another version?", kind));
        return;
    }
    on_volume_event(kind, *id, event);
}

void BlockdDriver::on_volume_event(const std::string& kind, const VolumeId& id, const json& event) {
    const std::string name = text(event, "volume");
    if (kind == "view" && event.contains("view")) {
        on_view(id, name, event["view"]);
    } else if (kind == "front") {
        on_front(id, event);
    } else if (kind == "propose") {
        auto propose = ipc::decode_propose(event);
        if (propose) {
            sink_(cluster::BlockdProposal{id, std::move(*propose)});
        } else {
            log::error(
                fmt::format("blockd's proposal for {} cannot be read: {}", name, propose.error().message));
        }
    } else if (kind == "need_record") {
        sink_(cluster::BlockdNeedsRecord{id, number(event, "at_least_revision")});
    } else if (kind == "notice") {
        log::info(fmt::format("blockd: {}: {}", name, text(event, "text")));
    }
}

void BlockdDriver::on_view(const VolumeId& id, const std::string& name, const json& in) {
    const auto known = volumes_.find(id);
    if (known != volumes_.end() ? known->second.detaching : tables_().volume_by_id(id) == nullptr) return;
    const auto view = ipc::decode_view(in);
    if (!view) {
        log::error(fmt::format("blockd's view of {} cannot be read: {}", name, view.error().message));
        return;
    }
    Volume& volume = volumes_[id];
    volume.name = name;
    if (view->attached) volume.attached = true;
    // After a connection blockd tells of each front end anew; a view before that would say "nobody
    // connected".
    constexpr Duration kFrontWait = seconds(3);
    const auto front = fronts_.find(id);
    const bool told = front != fronts_.end() && front->second.epoch == view->epoch;
    if (view->epoch != 0 && !told && boot_now() - connected_at_ < kFrontWait) return;
    sink_(cluster::BlockdVolume{id, *view, told ? front->second.sessions : 0});
}

void BlockdDriver::on_front(const VolumeId& id, const json& event) {
    const std::uint64_t epoch = number(event, "epoch");
    const bool open = event.contains("socket") && event["socket"].is_string();
    if (open) {
        fronts_[id] = {epoch, number(event, "client_pid") != 0 ? 1U : 0U};
    } else if (fronts_.contains(id) && fronts_[id].epoch == epoch) {
        fronts_.erase(id);
    }
}

std::optional<std::string> BlockdDriver::name_of(const VolumeId& id) const {
    const auto known = volumes_.find(id);
    if (known != volumes_.end() && !known->second.name.empty()) return known->second.name;
    if (const auto* row = tables_().volume_by_id(id)) return row->record.name;
    return std::nullopt;
}

const ReplicaRecord* BlockdDriver::own_replica(const VolumeRecord& record) const {
    for (const auto& replica : record.replicas)
        if (replica.node == settings_.file.name) return &replica;
    return nullptr;
}

// ---- records ----

void BlockdDriver::handle(const cluster::BlockdRecord& order) {
    const VolumeRecord& record = order.committed.record;
    if (own_replica(record) == nullptr) return;
    Volume& volume = volumes_[record.id];
    volume.name = record.name;
    volume.detaching = false;
    volume.record = order.committed;
    if (!up_) return;  // blockd is told everything again when it is back
    if (volume.attached) {
        send_record(record.id);
    } else {
        attach(record.id);
    }
}

void BlockdDriver::attach(const VolumeId& id) {
    Volume& volume = volumes_[id];
    if (volume.attaching || !volume.record) return;
    const VolumeRecord& record = volume.record->record;
    const ReplicaRecord* mine = own_replica(record);
    json peer = nullptr;
    for (const auto& replica : record.replicas) {
        const PeerConfig* config = settings_.file.peer(replica.node);
        if (config != nullptr) peer = {{"node", replica.node}, {"links", config->links}};
    }
    volume.attaching = true;
    request({{"do", "attach"},
             {"volume", record.name},
             {"volume_id", record.id.to_string()},
             {"replica_id", mine->replica.to_string()},
             {"path", settings_.volume_path(mine->pool, record.name)},
             {"peer", peer}},
            kLong, [this, id](const Result<json>& answer) {
                const auto found = volumes_.find(id);
                if (found == volumes_.end()) return;
                found->second.attaching = false;
                const bool already = !answer && answer.error().code == ErrorCode::already_exists;
                found->second.attached = answer.has_value() || already;
                if (found->second.attached) {
                    send_record(id);
                } else {
                    log::warning(
                        fmt::format("{} cannot be attached: {}", found->second.name, answer.error().message));
                }
            });
}

void BlockdDriver::send_record(const VolumeId& id) {
    const Volume& volume = volumes_[id];
    if (!volume.record) return;
    request({{"do", "record"}, {"volume", volume.name}, {"committed", ipc::encode_committed(*volume.record)}},
            kShort, [this, id, name = volume.name](const Result<json>& answer) {
                if (answer) return;
                const auto known = volumes_.find(id);
                const bool gone = answer.error().code == ErrorCode::not_found && known != volumes_.end();
                if (!gone || known->second.detaching) {
                    log::warning(fmt::format("blockd did not take the record of {}: {}", name,
                                             answer.error().message));
                    return;
                }
                known->second.attached = false;
                attach(id);
            });
}

void BlockdDriver::handle(const cluster::BlockdDetach& order) {
    const auto name = name_of(order.volume);
    mark_detaching(order.volume);
    if (!name) return;
    request({{"do", "detach"}, {"volume", *name}}, kLong,
            [this, name = *name, id = order.volume](const Result<json>& answer) {
                forget_detached(id);
                if (!answer && answer.error().code != ErrorCode::not_found)
                    log::warning(fmt::format("blockd keeps {}: {}", name, answer.error().message));
            });
}

// Its entry stays until blockd has let go of it, so that what is still said of it is known to be of the past.
void BlockdDriver::mark_detaching(const VolumeId& id) {
    const auto known = volumes_.find(id);
    if (known != volumes_.end()) known->second = {known->second.name, false, false, true, std::nullopt};
}

// Unless it was handed over anew meanwhile.
void BlockdDriver::forget_detached(const VolumeId& id) {
    const auto known = volumes_.find(id);
    if (known == volumes_.end() || !known->second.detaching) return;
    volumes_.erase(known);
    fronts_.erase(id);
}

void BlockdDriver::handle(const cluster::BlockdRenew& order) {
    const auto name = name_of(order.volume);
    if (!name) return;
    request({{"do", "renew"},
             {"volume", *name},
             {"sent_at_ns", order.renewal.sent_at.nanoseconds_since_boot},
             {"committed", ipc::encode_committed(order.renewal.committed)}},
            kShort, [](const Result<json>&) {});
}

void BlockdDriver::handle(const cluster::BlockdProposalDone& order) {
    const auto name = name_of(order.volume);
    if (!name) return;
    const auto& current = order.done.current;
    request({{"do", "proposal_done"},
             {"volume", *name},
             {"proposal", order.done.proposal},
             {"outcome", std::string(ipc::to_string(order.done.outcome))},
             {"committed", current ? ipc::encode_committed(*current) : json(nullptr)}},
            kShort, [](const Result<json>&) {});
}

void BlockdDriver::handle(const cluster::BlockdRefuseEpoch& order) {
    const auto name = name_of(order.volume);
    if (!name) return;
    request({{"do", "refuse_epoch"}, {"volume", *name}, {"epoch", order.epoch}}, kShort,
            [this, order](const Result<json>& answer) {
                if (answer) sink_(cluster::BlockdEpochRefused{order.volume, order.epoch});
            });
}

void BlockdDriver::handle(const cluster::BlockdPeerProvenDown& order) {
    for (const auto& [name, row] : tables_().volumes) {
        bool here = false;
        bool there = false;
        for (const auto& replica : row.record.replicas) {
            here = here || replica.node == settings_.file.name;
            there = there || replica.node == order.node;
        }
        if (here && there)
            request({{"do", "peer_proven_down"},
                     {"volume", name},
                     {"incarnation", order.incarnation.to_string()}},
                    kShort, [](const Result<json>&) {});
    }
}

// ---- making and ending replicas ----

json BlockdDriver::format_request(const VolumeRecord& record) const {
    const ReplicaRecord* mine = own_replica(record);
    // known to the replica from the start, so that its first difference needs no full comparison
    json peer = nullptr;
    for (const auto& replica : record.replicas)
        if (&replica != mine && replica.in_ack_set) peer = replica.replica.to_string();
    return {
        {"do", "format"},
        {"volume", record.name},
        {"volume_id", record.id.to_string()},
        {"replica_id", mine->replica.to_string()},
        {"cluster_id", settings_.file.cluster.to_string()},
        {"path", settings_.volume_path(mine->pool, record.name)},
        {"size_bytes", record.size_bytes},
        {"first_generation", mine->in_ack_set ? ipc::encode_generation(record.generation) : json(nullptr)},
        {"peer_replica_id", peer}};
}

void BlockdDriver::handle(const cluster::BlockdFormat& order) {
    if (own_replica(order.record) == nullptr) {
        done(order.tag, fail(ErrorCode::invalid_argument, "this node holds no replica of that volume"));
        return;
    }
    volumes_[order.record.id].name = order.record.name;
    request(format_request(order.record), kLong,
            [this, tag = order.tag](const Result<json>& answer) { done(tag, answer); });
}

void BlockdDriver::handle(const cluster::BlockdDelete& order) {
    mark_detaching(order.volume);
    const std::string path = settings_.volume_path(order.pool, order.name);
    request({{"do", "detach"}, {"volume", order.name}}, kLong,
            [this, order, path](const Result<json>& detached) {
                forget_detached(order.volume);
                if (!detached && detached.error().code != ErrorCode::not_found) {
                    done(order.tag, detached);
                    return;
                }
                request({{"do", "remove"}, {"volume", order.name}, {"path", path}}, kLong,
                        [this, tag = order.tag](const Result<json>& removed) {
                            const bool gone = !removed && removed.error().code == ErrorCode::not_found;
                            done(tag, gone ? Result<json>(json::object()) : removed);
                        });
            });
}

void BlockdDriver::handle(const cluster::BlockdSetAside& order) {
    const ReplicaRecord* mine = own_replica(order.record);
    if (mine == nullptr) {
        done(order.tag, fail(ErrorCode::invalid_argument, "this node holds no replica of that volume"));
        return;
    }
    const std::string path = settings_.volume_path(mine->pool, order.record.name);
    const std::string kept = path + ".aside-" + order.old.to_string().substr(0, 8);
    // Until it is detached, what blockd says of it is about the replica that goes.
    Volume& volume = volumes_[order.record.id];
    volume.attached = false;
    volume.detaching = true;
    request({{"do", "detach"}, {"volume", order.record.name}}, kLong,
            [this, order, path, kept](const Result<json>& detached) {
                volumes_[order.record.id].detaching = false;
                if (!detached && detached.error().code != ErrorCode::not_found) {
                    done(order.tag, detached);
                    return;
                }
                request({{"do", "rename"}, {"volume", order.record.name}, {"path", path}, {"to", kept}},
                        kLong, [this, order](const Result<json>& renamed) {
                            // Renamed by an earlier attempt: the new file is what is missing.
                            const bool before =
                                !renamed && (renamed.error().code == ErrorCode::not_found ||
                                             renamed.error().code == ErrorCode::already_exists);
                            if (!renamed && !before) {
                                done(order.tag, renamed);
                                return;
                            }
                            handle(cluster::BlockdFormat{order.tag, order.record});
                        });
            });
}

// Refusing the epoch durably is what ends serving: its front end is closed and no request of it is
// acknowledged afterwards (docs/formats/control.md, "Release is a refusal").
void BlockdDriver::handle(const cluster::BlockdRelease& order) {
    const auto name = name_of(order.volume);
    if (!name) {
        done(order.tag, json::object());
        return;
    }
    request({{"do", "refuse_epoch"}, {"volume", *name}, {"epoch", order.epoch}}, kLong,
            [this, tag = order.tag](const Result<json>& answer) {
                const bool absent =
                    !answer && answer.error().code == ErrorCode::not_found;  // it serves nothing
                done(tag, absent ? Result<json>(json::object()) : answer);
            });
}

void BlockdDriver::handle(const cluster::BlockdCloseAll& order) {
    auto open = std::make_shared<std::size_t>(0);
    auto problem = std::make_shared<std::optional<Error>>();
    for (const auto& [id, volume] : volumes_)
        if (volume.attached) ++*open;
    if (*open == 0) {
        done(order.tag, json::object());
        return;
    }
    for (auto& [id, volume] : volumes_) {
        if (!volume.attached) continue;
        volume.attached = false;
        request({{"do", "detach"}, {"volume", volume.name}}, kLong,
                [this, open, problem, tag = order.tag](const Result<json>& answer) {
                    if (!answer) *problem = answer.error();
                    if (--*open != 0) return;
                    done(tag, *problem ? Result<json>(tl::unexpected<Error>(**problem))
                                       : Result<json>(json::object()));
                });
    }
}

}  // namespace gemel::clusterd
