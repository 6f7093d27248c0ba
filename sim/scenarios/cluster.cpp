#include "sim/scenarios/cluster.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "core/formats/records_json.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

constexpr auto kBetween = std::to_array({Cable::control, Cable::link1, Cable::link2});
constexpr Duration kAnswer = seconds(30);

}  // namespace

// ---- the operator
// ------------------------------------------------------------------------------------------------

Cluster::Answer Cluster::ask(std::uint32_t node, const cluster::ApiCommand& command,
                             const std::string& shown) {
    stage_.line(node, "operator", "gemel " + shown);
    const auto got = std::make_shared<std::optional<Answer>>();
    plane().ask(node, command, [got](const Result<OperationRecord>& result) {
        Answer answer;
        answer.accepted = result.has_value();
        if (result) answer.operation = result->id;
        if (!result) answer.text = result.error().message;
        *got = answer;
    });
    stage_.until(
        "the operator is answered", [got] { return got->has_value(); }, kAnswer);
    stage_.line(node, "answer", (*got)->accepted ? "accepted" : "refused: " + (*got)->text);
    return **got;
}

std::string Cluster::outcome(std::uint32_t node, const Answer& answer, Duration bound) {
    std::string text;
    stage_.until(
        "the operation has ended",
        [&] {
            if (clusterd(node) == nullptr) return false;
            const auto record = clusterd(node)->operation(answer.operation);
            if (!record) return false;
            text =
                std::string(to_string(record->state)) + (record->error.empty() ? "" : ": " + record->error);
            return record->state == OperationState::succeeded || record->state == OperationState::failed;
        },
        bound);
    stage_.line(node, "operation", text);
    return text;
}

// ---- faults
// ------------------------------------------------------------------------------------------------------

void Cluster::power_cut_with_bmc(std::uint32_t node) {
    stage_.fault(node, "power cut, its BMC's too");
    stage_.world().power_off(node);
    stage_.world().network().set_bmc(node, false);
}

void Cluster::part(bool with_management) {
    stage_.fault(kWorld, with_management ? "the nodes are parted on all paths, their BMCs' too"
                                         : "the nodes are parted on all paths but their BMCs'");
    for (const Cable cable : kBetween) stage_.world().network().cut_both_ways(cable, 0, 1, true);
    if (with_management) stage_.world().network().cut_both_ways(Cable::management, 0, 1, true);
}

void Cluster::heal_parted() {
    stage_.line(kWorld, "network", "the paths between the nodes are whole again");
    for (const Cable cable : kBetween) stage_.world().network().cut_both_ways(cable, 0, 1, false);
    stage_.world().network().cut_both_ways(Cable::management, 0, 1, false);
}

void Cluster::cut_management(std::uint32_t victim, bool cut) {
    if (cut) {
        stage_.fault(victim, "its BMC cannot be reached");
    } else {
        stage_.line(victim, "network", "its BMC can be reached again");
    }
    stage_.world().network().cut(Cable::management, 1 - victim, victim, cut);
}

void Cluster::cut_off(std::uint32_t node, bool cut) {
    if (cut) {
        stage_.fault(node, "cut off from the other node and from the witness");
    } else {
        stage_.line(node, "network", "its paths are whole again");
    }
    for (const Cable cable : kBetween) stage_.world().network().cut_both_ways(cable, 0, 1, cut);
    stage_.world().network().cut_both_ways(Cable::control, node, kWitness, cut);
}

void Cluster::witness(bool up) {
    if (up) {
        stage_.line(kWorld, "witness", "is up again");
    } else {
        stage_.fault(kWorld, "the witness is down");
    }
    stage_.world().set_witness(up);
}

void Cluster::witness_begins_anew() {
    store().set_aside(kWitness);
    stage_.until(
        "a learner is added for the witness", [this] { return store().join(kWitness); }, seconds(200));
    stage_.line(kWorld, "witness", "begins anew, as a learner without a vote");
}

void Cluster::kill_store(std::uint32_t node) {
    stage_.fault(node, "etcd is killed");
    store().stop(node, false);
}

void Cluster::restart_clusterd(std::uint32_t node) {
    stage_.fault(node, "clusterd is restarted");
    stage_.world().stop_clusterd(node);
    stage_.world().start_clusterd(node);
}

void Cluster::restart_all_daemons() {
    for (const std::uint32_t node : {0U, 1U}) {
        restart_clusterd(node);
        stage_.run(seconds(20));
        kill_store(node);
        stage_.run(seconds(20));
        stage_.kill_blockd(node);
        stage_.run(seconds(1));
        stage_.start_blockd(node);
        stage_.run(seconds(20));
        stage_.finish(stage_.write(20 + node));
    }
}

bool Cluster::touches(const cluster::Txn& txn, std::string_view prefix) {
    return std::ranges::any_of(txn.puts, [prefix](const auto& put) { return put.key.starts_with(prefix); });
}

std::size_t Cluster::ack_set_in(const cluster::Txn& txn) {
    for (const auto& put : txn.puts) {
        if (!put.key.starts_with(keys::kVolumes)) continue;
        const auto record = decode<VolumeRecord>(put.value);
        if (!record) continue;
        return static_cast<std::size_t>(
            std::ranges::count_if(record->replicas, [](const auto& one) { return one.in_ack_set; }));
    }
    return 0;
}

// ---- looking
// -----------------------------------------------------------------------------------------------------

bool Cluster::guest_runs_on(std::uint32_t node) {
    const Guest& guest = stage_.world().guest();
    return guest.running() && guest.node() == node && plane().guest_host(node).vcpus_run();
}

bool Cluster::acting(std::uint32_t node) {
    return clusterd(node) != nullptr && clusterd(node)->is_acting();
}

bool Cluster::coordinates(std::uint32_t node) {
    return clusterd(node) != nullptr && clusterd(node)->is_coordinator();
}

std::string Cluster::store_state(std::uint32_t node) {
    return clusterd(node) == nullptr ? "clusterd does not run" : clusterd(node)->status().store.state;
}

std::size_t Cluster::forcings() {
    return truth().lineage ? truth().lineage->record.ancestors.size() : 0;
}

void Cluster::show_status(std::uint32_t node) {
    if (clusterd(node) == nullptr) return stage_.line(node, "status", "clusterd does not run");
    const auto status = clusterd(node)->status();
    if (status.problems.empty()) stage_.line(node, "status", "nothing is wrong");
    for (const auto& problem : status.problems) {
        stage_.line(node, "status",
                    fmt::format("{}: {} ({}){}", problem.object, problem.what, problem.why,
                                problem.next_command ? "; " + *problem.next_command : ""));
    }
}

bool Cluster::says(std::uint32_t node, std::string_view text) {
    if (clusterd(node) == nullptr) return false;
    const auto status = clusterd(node)->status();
    return std::ranges::any_of(status.problems, [text](const auto& problem) {
        return problem.what.find(text) != std::string::npos || problem.why.find(text) != std::string::npos ||
               problem.next_command.value_or("").find(text) != std::string::npos;
    });
}

std::string Cluster::why_guest_waits(std::uint32_t node) {
    if (clusterd(node) == nullptr) return {};
    const auto status = clusterd(node)->status();
    return status.guests.empty() ? std::string() : status.guests.front().why.value_or("");
}

}  // namespace gemel::sim
