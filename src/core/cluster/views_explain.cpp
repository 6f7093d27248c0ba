// Problems, explanations and plans: what is wrong, why, and what to type. See views.hpp.
#include <algorithm>

#include "core/cluster/views.hpp"
#include "core/cluster/volume_rules.hpp"

namespace gemel::cluster {
namespace {

int rank(const std::string& severity) {
    return severity == "critical" ? 0 : severity == "error" ? 1 : 2;
}
std::string join(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none" : text;
}

}  // namespace

void Views::store_problems(std::vector<ProblemView>& out) const {
    const auto state = store().state;
    const auto other = context_.other_voter();
    if (state == "split-brain") {
        out.push_back({"critical", "store", "the store has two histories: nothing is decided on either side",
                       node_.boot.why() + "; on the node whose history shall go on:",
                       "gemel cluster start --alone --accept-loss"});
    } else if (state == "old") {
        out.push_back({"error", "store", "this node's store is old; it was set aside", node_.boot.why(), {}});
    } else if (state == "waiting-for-peer") {
        out.push_back({"error", "store", "one of two voters is alone and has no standing",
                       "it cannot know whether " + other.value_or("its peer") + " went on without it",
                       "gemel cluster start --alone --accept-loss"});
    } else if (state == "no-quorum") {
        std::optional<std::string> next;
        std::string why = other ? node_.arbiter.why() : "the majority of the voters does not answer";
        const bool stuck = other && node_.arbiter.state() == Arbiter::State::waiting_turn;
        if (stuck) next = "gemel node confirm-down " + *other;
        if (why.empty()) why = other.value_or("the other voter") + "'s store member does not answer";
        out.push_back({"critical", "store", "no quorum: nothing can be decided", why, next});
    } else if (state == "forcing") {
        out.push_back({"warning", "store", "becoming the only voter", node_.arbiter.why(), {}});
    }
    for (const auto& [key, why] : tables_.refused) {
        out.push_back({"critical",
                       "store",
                       "a record of the store cannot be read; this node does not act",
                       key + ": " + why,
                       {}});
        break;
    }
    for (const auto& voter : store().voters) {
        if (voter.kind == "witness" && voter.state == "down" && state == "quorate") {
            out.push_back(
                {"warning", "store", "the witness is down: one more loss stops decisions", voter.name, {}});
        }
    }
}

// A node that answers, but not on every path.
void Views::path_problems(const NodeView& node, std::vector<ProblemView>& out) const {
    std::vector<std::string> down;
    std::string address;
    std::size_t replication_up = 0;
    for (const auto& link : node.links) {
        if (link.state == "down") {
            down.push_back(link.name);
            if (address.empty()) address = link.address.substr(0, link.address.rfind(':'));
        } else if (link.name != "control") {
            ++replication_up;
        }
    }
    if (down.empty() || node.state != "online") return;
    const bool cut_off = replication_up == 0;
    out.push_back({"warning", "node/" + node.name,
                   (down.size() == 1 ? "path " : "paths ") + join(down) + " to it: down",
                   cut_off ? "no replication link works, or its gemel-blockd does not: volumes have one "
                             "current replica until then"
                           : "the other paths carry the traffic; nothing is frozen",
                   "ping " + address});
}

void Views::node_problems(std::vector<ProblemView>& out) const {
    for (const auto& [name, row] : tables_.nodes) {
        const auto view = node(row.record);
        path_problems(view, out);
        const std::string object = "node/" + name;
        const auto blocked = context_.blocked.find(object);
        if (view.state == "suspected" || view.state == "offline" || view.state == "unknown" ||
            view.state == "fencing") {
            const bool stuck = blocked != context_.blocked.end();
            // Vouching is the last rung: it is named only once it would be accepted, never while a fence
            // agent may still give the proof.
            std::optional<std::string> next;
            if (node_.arbiter.may_confirm_down(name)) next = "gemel node confirm-down " + name;
            const std::string silent =
                view.state == "fencing" ? "silent on all paths; it is being fenced" : "silent on all paths";
            out.push_back({view.state == "suspected" ? "warning" : "error", object, "does not answer",
                           stuck ? blocked->second.why : silent, next});
        } else if (view.state == "fenced" || view.state == "confirmed-down" || view.state == "left") {
            out.push_back(
                {"warning", object, "is " + view.state, "it takes part again when it has booted", {}});
        }
        for (const auto& rung : view.rungs) {
            if (rung.kind != "fence-device" || tables_.nodes.size() < 2 || name == context_.config.name)
                continue;
            if (rung.state == "absent") {
                out.push_back({"warning", object, "has no fence device",
                               "its loss can only be proven by the operator",
                               "gemel fence set bmc-" + name + " --node " + name +
                                   " --agent fence_ipmilan --option ip=ADDRESS --option username=USER"
                                   " --secret-file password=FILE"});
            } else if (rung.state == "failing") {
                out.push_back({"error", "fence/" + rung.device.value_or(""),
                               "the fence device does not answer", rung.detail.value_or(""),
                               "gemel fence test " + rung.device.value_or("")});
            }
        }
    }
}

void Views::volume_problems(std::vector<ProblemView>& out) const {
    for (const auto& [name, row] : tables_.volumes) {
        const auto state = volume_state(row.record);
        const std::string object = "volume/" + name;
        const auto* seen = facts(row.record);
        const std::string detail = seen != nullptr ? seen->view.problem : "";
        if (state == "split-brain") {
            out.push_back({"critical", object, "split brain: the replicas have different histories", detail,
                           "gemel volume resolve " + name + " --keep NODE"});
        } else if (state == "frozen") {
            out.push_back({"critical", object, "its writes wait for a decision", detail, {}});
        } else if (state == "unavailable") {
            out.push_back({"error", object, "no current replica is reachable",
                           "current: " + join(ack_set(row.record)), "gemel explain volume " + name});
        } else if (state == "degraded") {
            out.push_back({"warning",
                           object,
                           "only one replica is current",
                           "current: " + join(ack_set(row.record)),
                           {}});
        } else if (state == "resync") {
            out.push_back({"warning", object, "a replica is being brought up to date", detail, {}});
        }
    }
}

void Views::guest_problems(std::vector<ProblemView>& out) const {
    for (const auto& [name, row] : tables_.guests) {
        const auto view = guest(row.record);
        const bool switching = view.state == "paused" && view.migration;
        if (view.desired != "running" || view.state == "running" || switching) continue;
        const bool blocked = view.phase == "blocked";
        out.push_back({blocked ? "error" : "warning", "vm/" + name,
                       "guest " + name + " shall run and is " + view.phase.value_or(view.state),
                       view.why.value_or(""),
                       blocked ? std::optional<std::string>("gemel vm start " + name) : std::nullopt});
    }
}

std::vector<ProblemView> Views::problems() const {
    std::vector<ProblemView> out;
    store_problems(out);
    node_problems(out);
    volume_problems(out);
    guest_problems(out);
    if (!context_.blockd_up) {
        out.push_back({"error", "node/" + context_.config.name, "blockd does not answer",
                       "its volumes wait; they lose nothing", "systemctl status gemel-blockd"});
    }
    if (!context_.domains_known) {
        out.push_back({"error", "node/" + context_.config.name, "libvirt does not answer",
                       "guests here run on, but none can be started or stopped",
                       "systemctl status libvirtd"});
    }
    std::stable_sort(out.begin(), out.end(),
                     [](const auto& a, const auto& b) { return rank(a.severity) < rank(b.severity); });
    return out;
}

ExplainView Views::explain_guest(const GuestRecord& record) const {
    const auto view = guest(record);
    ExplainView out{"vm/" + record.name, "", {}, {}};
    out.now = "shall be " + view.desired + ", is " + view.state + (view.node ? " on " + *view.node : "");
    if (view.why) out.because.push_back(*view.why);
    for (const auto& disk : record.disks) {
        const auto row = tables_.volumes.find(disk.volume);
        if (row == tables_.volumes.end()) {
            out.because.push_back("volume " + disk.volume + " does not exist");
            continue;
        }
        for (const auto& [name, node_row] : tables_.nodes) {
            if (view.node == name) continue;
            VolumeRecord free = row->second.record;
            free.owner.reset();
            const auto why =
                grant_refusal(tables_, free, name, [this](const std::string& n) { return alive(n); });
            out.because.push_back(why.empty() ? name + " could take " + disk.volume : why);
        }
    }
    out.because.push_back("restarts " + std::to_string(record.restarts) + " of " +
                          std::to_string(GuestRecord::kMaxRestarts) + ", priority " +
                          std::to_string(record.priority));
    if (view.node) {
        out.next.push_back({*view.node + " is lost and its loss is proven",
                            "it starts on a node all of whose replicas are current",
                            {}});
    }
    if (view.phase == "blocked") {
        out.next.push_back(
            {"an operator starts it", "its attempts are counted anew", "gemel vm start " + record.name});
    }
    return out;
}

ExplainView Views::explain_node(const NodeRecord& record) const {
    const auto view = node(record);
    ExplainView out{"node/" + record.name, record.name + " is " + view.state, {}, {}};
    const auto blocked = context_.blocked.find("node/" + record.name);
    if (blocked != context_.blocked.end()) out.because.push_back(blocked->second.why);
    for (const auto& link : view.links) out.because.push_back("path " + link.name + " is " + link.state);
    for (const auto& rung : view.rungs) out.because.push_back("proof by " + rung.kind + ": " + rung.state);
    if (record.name == context_.config.name) {
        out.because.push_back("boot: " + node_.boot.why());
        out.because.push_back(std::string("standing: ") + (node_.standing.holds() ? "yes" : "no"));
    } else {
        out.next.push_back(
            {"it is silent on all paths for " + std::to_string(context_.timing().suspicion_ms) + " ms",
             view.is_protected ? "it is fenced, then what it ran starts elsewhere"
                               : "nothing is started elsewhere until an operator vouches for its loss",
             view.is_protected ? std::nullopt
                               : std::optional<std::string>("gemel node confirm-down " + record.name)});
    }
    return out;
}

ExplainView Views::explain_volume(const Row<VolumeRecord>& row) const {
    const auto view = volume(row);
    ExplainView out{"volume/" + view.name, view.name + " is " + view.state, {}, {}};
    out.because.push_back("acknowledged writes are on: " + join(view.ack_set));
    for (const auto& replica : view.replicas)
        out.because.push_back("replica on " + replica.node + ": " + replica.disk);
    if (view.owner)
        out.because.push_back("held by " + view.owner->node + ", epoch " + std::to_string(view.owner->epoch));
    for (const auto& [name, other] : tables_.nodes) {
        if (replica_on(row.record, name) == nullptr) continue;
        const auto why =
            grant_refusal(tables_, row.record, name, [this](const std::string& n) { return alive(n); });
        out.because.push_back(name + (why.empty() ? " may be granted it" : " may not be granted it: " + why));
    }
    if (const auto* seen = facts(row.record); seen != nullptr && !seen->view.problem.empty()) {
        out.because.push_back(seen->view.problem);
    }
    if (view.state == "unavailable") {
        out.next.push_back({"a node with a current replica returns", "it is available again", {}});
        out.next.push_back({"that will never happen",
                            "declare another replica current; what it lacks is lost",
                            "gemel volume force-uptodate " + view.name + " --node NODE"});
    } else {
        out.next.push_back(
            {"a replica's node is lost", "the other goes on alone once that is committed", {}});
    }
    return out;
}

Result<ExplainView> Views::explain(const std::string& kind, const std::string& name) const {
    if (kind == "vm") {
        const auto row = tables_.guests.find(name);
        if (row != tables_.guests.end()) return explain_guest(row->second.record);
    } else if (kind == "node") {
        const auto row = tables_.nodes.find(name);
        if (row != tables_.nodes.end()) return explain_node(row->second.record);
    } else if (kind == "volume") {
        const auto row = tables_.volumes.find(name);
        if (row != tables_.volumes.end()) return explain_volume(row->second);
    } else {
        return fail(ErrorCode::invalid_argument, "kind: expected vm, node or volume");
    }
    return fail(ErrorCode::not_found, "there is no " + kind + " named " + name);
}

PlanView Views::plan_confirm_down(const std::string& name) const {
    PlanView view;
    view.confirm_name = name;
    const auto may = node_.arbiter.may_confirm_down(name);
    view.allowed = may.has_value();
    if (!may) view.refusal = may.error().message;
    view.wait_ms = context_.timing().regrant_ms();
    view.will_do = {"take " + name + " for lost", "wait out the regrant bound",
                    "start what it ran on other nodes"};
    view.may_lose = {"if " + name +
                     " is in truth running: its guests run twice and acknowledged writes may be lost"};
    return view;
}

PlanView Views::plan_leave(const std::string& name) const {
    PlanView view;
    view.confirm_name = name;
    const bool self = name == context_.config.name;
    const Status may =
        self ? node_.leaver.may_leave()
             : Status(fail(ErrorCode::failed_precondition,
                           "a node leaves by its own word: run 'gemel node leave " + name + "' on " + name));
    view.allowed = may.has_value();
    if (!may) view.refusal = may.error().message;
    view.will_do = {"shut down the guests that run on " + name, "close its volumes and give its leases back",
                    "let the other node go on without fencing it, and start there what can run there"};
    for (const auto& [guest, row] : tables_.guests) {
        const auto& placement = row.record.placement;
        if (!placement || placement->node != name) continue;
        bool elsewhere = false;
        for (const auto& [node, other] : tables_.nodes) {
            bool all = node != name && alive(node);
            for (const auto& disk : row.record.disks) {
                const auto volume = tables_.volumes.find(disk.volume);
                all = all && volume != tables_.volumes.end() && promotable(volume->second.record, node);
            }
            elsewhere = elsewhere || all;
        }
        if (!elsewhere)
            view.may_lose.push_back("the service of " + guest + " until " + name +
                                    " is back: no other node has its disks");
    }
    return view;
}

PlanView Views::plan_volume(const std::string& action, const Row<VolumeRecord>& row,
                            const std::string& name) const {
    const VolumeRecord& record = row.record;
    PlanView view;
    view.confirm_name = record.name;
    view.allowed = true;
    const auto refuse = [&view](const std::string& why) {
        view.allowed = false;
        view.refusal = why;
    };
    if (action == "volume.delete") {
        view.will_do = {"delete all replicas of " + record.name};
        view.may_lose = {"everything on " + record.name};
        for (const auto& [guest, user] : tables_.guests) {
            for (const auto& disk : user.record.disks) {
                if (disk.volume == record.name)
                    refuse("it is a disk of the guest " + guest + "; gemel vm delete " + guest + " first");
            }
        }
        if (record.owner) {
            refuse("it is held by " + record.owner->node + " (" + record.owner->purpose +
                   "); stop the guest or close the export first");
        }
        return view;
    }
    if (replica_on(record, name) == nullptr) {
        refuse("it has no replica on '" + name + "'");
        return view;
    }
    if (action == "volume.force-uptodate") {
        view.will_do = {"declare the replica on " + name + " current, all others Outdated"};
        view.may_lose = {"acknowledged writes that only " + join(ack_set(record)) + " has"};
        for (const auto& replica : record.replicas) {
            if (promotable(record, replica.node) && alive(replica.node)) {
                refuse("the replica on " + replica.node + " is current and can be promoted");
            }
        }
    } else {
        view.will_do = {"keep the replica on " + name,
                        "rename and keep the other, build a new one from the kept"};
        view.may_lose = {
            "nothing is deleted; what only the other replica has goes on in the renamed copy only"};
        if (record.replicas.size() != 2) refuse("it has only one replica");
        const auto* seen = facts(record);
        const bool split =
            seen != nullptr && seen->view.connection == replication::ConnectionState::standalone;
        bool both = record.replicas.size() == 2;
        for (const auto& replica : record.replicas) both = both && promotable(record, replica.node);
        if (both && !split) refuse("both replicas are UpToDate and agree: there is no split brain to end");
    }
    return view;
}

Result<PlanView> Views::plan(const std::string& action, const std::string& object, const std::string& node,
                             bool with_volumes) const {
    PlanView view;
    if (action == "node.confirm-down") {
        if (!tables_.nodes.contains(object))
            return fail(ErrorCode::not_found, "there is no node named " + object);
        view = plan_confirm_down(object);
    } else if (action == "node.leave") {
        if (!tables_.nodes.contains(object))
            return fail(ErrorCode::not_found, "there is no node named " + object);
        view = plan_leave(object);
    } else if (action == "cluster.start-alone") {
        view.confirm_name = tables_.cluster ? tables_.cluster->record.name : context_.config.cluster_name;
        const auto may = node_.arbiter.may_start_alone();
        view.allowed = may.has_value();
        if (!may) view.refusal = may.error().message;
        if (context_.store == StoreCondition::split_brain) {
            view.will_do = {"go on with this node's history of the store",
                            "rename and keep the other node's store, and let that node join this one"};
            view.may_lose = {
                "guests, volumes and settings made or changed on the other node since the two parted; "
                "their disks stay: 'gemel volume resolve' chooses for each"};
        } else {
            view.will_do = {"fence the other node and verify that it is off",
                            "make this node the only voter"};
            view.may_lose = {"everything the other node acknowledged alone and never sent here"};
        }
    } else if (action == "vm.delete") {
        const auto row = tables_.guests.find(object);
        if (row == tables_.guests.end())
            return fail(ErrorCode::not_found, "there is no guest named " + object);
        view.confirm_name = object;
        view.allowed = !row->second.record.placement && row->second.record.wish == GuestWish::stopped;
        if (!view.allowed) view.refusal = "it runs; gemel vm stop " + object + " first";
        view.will_do = {"forget the definition of " + object};
        if (with_volumes) {
            for (const auto& disk : row->second.record.disks) {
                view.will_do.push_back("delete all replicas of its volume " + disk.volume);
                view.may_lose.push_back("everything on " + disk.volume);
            }
        }
    } else if (action.compare(0, 7, "volume.") == 0) {
        const auto row = tables_.volumes.find(object);
        if (row == tables_.volumes.end())
            return fail(ErrorCode::not_found, "there is no volume named " + object);
        view = plan_volume(action, row->second, node);
    } else {
        return fail(ErrorCode::invalid_argument, "action: expected one of the API's plan actions");
    }
    view.action = action;
    view.object = object;
    return view;
}

}  // namespace gemel::cluster
