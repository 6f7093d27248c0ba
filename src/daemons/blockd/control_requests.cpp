// The requests of the control socket: each is checked whole before anything is done; an unknown member is
// refused.
#include <algorithm>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/ipc/control_messages.hpp"
#include "core/formats/records.hpp"
#include "daemons/blockd/blockd.hpp"
#include "daemons/blockd/image.hpp"

namespace gemel::blockd {
namespace {

using nlohmann::json;

// Members of a request; the first complaint is kept.
class Members {
  public:
    explicit Members(const json& request) : request_(request) { seen_.push_back("do"); }

    const json* find(const char* name, bool required) {
        seen_.emplace_back(name);
        const auto found = request_.find(name);
        if (found != request_.end()) return &*found;
        if (required) complain(fmt::format("'{}' is missing", name));
        return nullptr;
    }
    std::string text(const char* name, bool required = true) {
        const json* value = find(name, required);
        if (value == nullptr || value->is_null()) {
            if (value != nullptr && required) complain(fmt::format("'{}' must be a text", name));
            return {};
        }
        if (!value->is_string() || value->get_ref<const std::string&>().empty()) {
            complain(fmt::format("'{}' must be a text that is not empty", name));
            return {};
        }
        return value->get<std::string>();
    }
    std::string name(const char* member) {
        const std::string value = text(member);
        if (!value.empty() && !is_valid_name(value)) {
            complain(
                fmt::format("'{}' is no name: lower case letters, digits and dashes are expected", value));
        }
        return value;
    }
    std::uint64_t number(const char* name) {
        const json* value = find(name, true);
        if (value == nullptr) return 0;
        if (!value->is_number_unsigned()) {
            complain(fmt::format("'{}' must be a whole number", name));
            return 0;
        }
        return value->get<std::uint64_t>();
    }
    template <typename Id>
    Id id(const char* name, bool required = true) {
        const std::string value = text(name, required);
        if (value.empty()) return {};
        auto parsed = Id::parse(value);
        if (!parsed) complain(fmt::format("'{}': {}", name, parsed.error().message));
        return parsed.value_or(Id{});
    }
    template <typename T>
    T take(Result<T> parsed) {
        if (parsed) return std::move(*parsed);
        complain(parsed.error().message);
        return {};
    }
    void complain(const std::string& what) {
        if (error_.empty()) error_ = what;
    }
    // after all members were asked for
    Status finish() {
        for (const auto& [key, value] : request_.items()) {
            if (std::ranges::find(seen_, key) == seen_.end())
                complain(fmt::format("'{}' is not known here", key));
        }
        if (error_.empty()) return {};
        return fail(ErrorCode::invalid_argument, fmt::format("request '{}': {} (docs/formats/control.md)",
                                                             request_["do"].get<std::string>(), error_));
    }

  private:
    const json& request_;
    std::vector<std::string> seen_;
    std::string error_;
};

void answer(const ipc::Reply& reply, const Status& status) {
    if (status) return reply.ok(json::object());
    reply.error(status.error());
}

}  // namespace

void Blockd::request(const json& request, const ipc::Reply& reply) {
    using Handler = void (Blockd::*)(const json&, const ipc::Reply&);
    static const std::map<std::string, Handler> kHandlers{
        {"format", &Blockd::do_format},
        {"attach", &Blockd::do_attach},
        {"detach", &Blockd::do_detach},
        {"remove", &Blockd::do_file},
        {"rename", &Blockd::do_file},
        {"record", &Blockd::do_record},
        {"renew", &Blockd::do_record},
        {"refuse_epoch", &Blockd::do_refuse_epoch},
        {"peer_proven_down", &Blockd::do_peer_proven_down},
        {"proposal_done", &Blockd::do_proposal_done},
    };
    const auto what = request["do"].get<std::string>();
    if (what == "status") return do_status(reply);
    const auto found = kHandlers.find(what);
    if (found == kHandlers.end()) {
        return reply.error(
            {ErrorCode::unsupported,
             fmt::format("'{}' is not known to gemel-blockd (docs/formats/control.md)", what)});
    }
    (this->*found->second)(request, reply);
}

void Blockd::do_status(const ipc::Reply& reply) {
    home().post([this, reply] { status_at_home(reply); });
}

void Blockd::do_format(const json& request, const ipc::Reply& reply) {
    Members in(request);
    formats::FormatRequest format;
    in.name("volume");
    format.volume = in.id<VolumeId>("volume_id");
    format.replica = in.id<ReplicaId>("replica_id");
    format.cluster = in.id<ClusterId>("cluster_id");
    format.size_bytes = in.number("size_bytes");
    format.peer = in.id<ReplicaId>("peer_replica_id", false);
    const std::string path = in.text("path");
    const json* generation = in.find("first_generation", false);
    if (generation != nullptr && !generation->is_null()) {
        format.generation = in.take(ipc::decode_generation(*generation));
    }
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    // it blocks (allocation, sync): not on the control thread
    std::thread([path, format, reply] { answer(reply, make_replica(path, format)); }).detach();
}

void Blockd::do_attach(const json& request, const ipc::Reply& reply) {
    Members in(request);
    VolumeOptions options;
    options.name = in.name("volume");
    options.id = in.id<VolumeId>("volume_id");
    options.replica = in.id<ReplicaId>("replica_id");
    options.path = in.text("path");
    options.cluster = options_.config.cluster;
    options.node = options_.config.name;
    options.run_dir = options_.config.run_dir;
    options.incarnation = options_.incarnation;
    options.process = process_;
    options.timing = options_.config.timing;
    const json* peer = in.find("peer", false);
    if (peer != nullptr && !peer->is_null()) {
        const bool usable = peer->is_object() && peer->contains("node") && (*peer)["node"].is_string() &&
                            peer->contains("links") && (*peer)["links"].is_object() && peer->size() == 2;
        if (usable) {
            options.peer_node = (*peer)["node"].get<std::string>();
            for (const auto& [name, address] : (*peer)["links"].items()) {
                if (address.is_string()) {
                    options.peer_links[name] = address.get<std::string>();
                } else {
                    in.complain("'peer.links' must map names to addresses");
                }
            }
        } else {
            in.complain("'peer' must be null or {\"node\":…,\"links\":{name:address}}");
        }
        if (options.peer_node == options.node) in.complain("'peer.node' is this node itself");
    }
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    home().post([this, options, reply] { attach_at_home(options, reply); });
}

void Blockd::do_detach(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    home().post([this, name, reply] { detach_at_home(name, reply); });
}

// remove and rename: of a volume that is not attached
void Blockd::do_file(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    const std::string path = in.text("path");
    const auto volume = in.id<VolumeId>("volume_id", false);
    const bool rename = request["do"] == "rename";
    const std::string to = rename ? in.text("to") : std::string();
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    home().post([this, name, path, to, rename, volume, reply] {
        for (const auto& [attached, entry] : volumes_) {
            if (attached != name && entry.volume->options().path != path) continue;
            return reply.error(
                {ErrorCode::failed_precondition, fmt::format("volume {} is attached with {}: detach it first",
                                                             attached, entry.volume->options().path)});
        }
        std::thread([path, to, rename, volume, reply] {
            VolumeId id = volume;
            if (id.is_nil()) {
                // the asker names the file only: it must at least be a replica
                if (const auto found = read_superblock(path)) id = found->superblock.volume;
            }
            answer(reply, rename ? rename_replica(path, to, id) : remove_replica(path, id));
        }).detach();
    });
}

void Blockd::with_volume(const std::string& name, const ipc::Reply& reply, VolumeTask task) {
    home().post([this, name, reply, task = std::move(task)] {
        const auto found = volumes_.find(name);
        if (found == volumes_.end() || found->second.closing) {
            return reply.error({ErrorCode::not_found, fmt::format("volume {} is not attached here", name)});
        }
        found->second.reactor->post([volume = found->second.volume.get(), task] { task(*volume); });
    });
}

// record and renew
void Blockd::do_record(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    const json* body = in.find("committed", true);
    CommittedVolume committed;
    if (body != nullptr) committed = in.take(ipc::decode_committed(*body));
    const bool renew = request["do"] == "renew";
    const Instant sent_at{renew ? static_cast<std::int64_t>(in.number("sent_at_ns")) : 0};
    if (renew && sent_at > ring::Reactor::read_clock()) in.complain("'sent_at_ns' lies in the future");
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    with_volume(name, reply, [=](Volume& volume) {
        if (committed.record.id != volume.options().id) {
            return reply.error(
                {ErrorCode::invalid_argument,
                 fmt::format("the record is of volume {}, not of {}", committed.record.id.to_string(),
                             volume.options().id.to_string())});
        }
        if (renew) {
            volume.renew(sent_at, committed);
        } else {
            volume.record(committed);
        }
        reply.ok(json::object());
    });
}

void Blockd::do_refuse_epoch(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    const std::uint64_t epoch = in.number("epoch");
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    with_volume(name, reply, [=](Volume& volume) {
        volume.refuse_epoch(epoch, [reply](const Status& status) { answer(reply, status); });
    });
}

void Blockd::do_peer_proven_down(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    const auto incarnation = in.take(Incarnation::parse(in.text("incarnation")));
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    with_volume(name, reply, [=](Volume& volume) {
        volume.peer_proven_down(incarnation);
        reply.ok(json::object());
    });
}

void Blockd::do_proposal_done(const json& request, const ipc::Reply& reply) {
    Members in(request);
    const std::string name = in.name("volume");
    replication::ProposalDone done;
    done.proposal = in.number("proposal");
    done.outcome = in.take(ipc::parse_outcome(in.text("outcome")));
    const json* current = in.find("committed", false);
    if (current != nullptr && !current->is_null()) done.current = in.take(ipc::decode_committed(*current));
    if (const auto checked = in.finish(); !checked) return reply.error(checked.error());
    with_volume(name, reply, [=](Volume& volume) {
        volume.proposal_done(done);
        reply.ok(json::object());
    });
}

}  // namespace gemel::blockd
