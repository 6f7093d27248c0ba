#include "core/cluster/releaser.hpp"

#include "core/cluster/volume_rules.hpp"

namespace gemel::cluster {

std::string Releaser::refusal(const std::string& from, const AskRelease& ask) const {
    if (context_.store_quorate()) return "its store is quorate";
    if (ask.victim != context_.config.incarnation) return "another life was asked";
    if (!context_.blockd_up) return "its blockd does not answer";
    if (!context_.domains_known) return "its libvirt does not answer";
    const LineageId mine = context_.latest.lineage_id();
    if (mine.is_nil() || ask.lineage != mine) return "the stores are of different lineages";
    if (ask.revision < context_.latest.revision) return "the asker's store is older";
    const auto* peer = peers_.find(from);
    const std::uint32_t theirs = peer != nullptr ? peer->heartbeat.weight : 0;
    const std::uint32_t ours = arbiter_.weight_of(context_.config.name);
    if (ours > theirs || (ours == theirs && context_.config.name < from))
        return "it has the more (weighted) guests";
    return {};
}

void Releaser::answer(bool granted, const std::string& reason) {
    peers_.send(asker_, ReleaseAnswer{ask_.operation, ask_.victim, granted, lineage_, revision_, reason});
}

void Releaser::asked(const std::string& from, const AskRelease& ask) {
    if (state_ != State::idle) {
        ask_.operation = ask.operation;  // asked again: the answer must name the newest question
        return;
    }
    asker_ = from;
    ask_ = ask;
    lineage_ = context_.latest.lineage_id();
    revision_ = context_.latest.revision;
    if (const auto why = refusal(from, ask); !why.empty()) return answer(false, why);
    context_.event("warning", "node.releasing", "node/" + context_.config.name,
                   from + " asked this node to release");
    context_.acting = false;
    destroyed_.clear();
    to_refuse_.clear();
    for (const auto& [name, row] : context_.latest.volumes) {
        // The asker's own epoch goes on, in its forced store too: refused, it could never be mirrored here
        // again.
        const bool owned_by_asker = row.record.owner && row.record.owner->node == from;
        if (replica_on(row.record, context_.config.name) != nullptr && !owned_by_asker)
            to_refuse_.insert({row.record.id, row.record.epoch});
    }
    state_ = State::destroying;
}

bool Releaser::domains_gone() {
    bool gone = context_.domains_known;
    for (const auto& [name, row] : context_.latest.guests) {
        const GuestId uuid = row.record.uuid;
        if (!context_.domains.contains(uuid)) continue;
        gone = false;
        if (!destroyed_.insert(uuid).second) continue;
        const Tag tag = context_.tag();
        context_.domain_waits[tag] = [](const DomainDone&) {};
        context_.emit(DestroyDomain{tag, uuid, "this node releases"});
    }
    return gone;
}

void Releaser::evaluate() {
    if (state_ == State::idle || context_.now < repeat_at_) return;
    switch (state_) {
        case State::idle: return;
        case State::destroying:
            if (!domains_gone()) {
                repeat_at_ = context_.now + milliseconds(100);
                return;
            }
            state_ = State::closing;
            [[fallthrough]];
        case State::closing: {
            bool closed = true;  // each is asked for, whatever the others say
            for (const auto& [volume, epoch] : to_refuse_)
                closed = context_.epoch_refused(volume, epoch) && closed;
            if (!closed) return;
            boot_.set_aside("released to " + asker_);
            state_ = State::aside;
            return;
        }
        case State::aside:
            if (!boot_.aside()) return;
            state_ = State::released;
            return;
        case State::released:
            // Said until the store is back in a cluster: the answer may get lost.
            if (!boot_.aside()) {
                state_ = State::idle;
                return;
            }
            answer(true, "");
            repeat_at_ = context_.now + milliseconds(500);
            return;
    }
}

}  // namespace gemel::cluster
