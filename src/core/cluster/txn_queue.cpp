#include "core/cluster/txn_queue.hpp"

#include <algorithm>
#include <utility>

#include "base/mutant.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

JobId TxnQueue::submit(Txn txn, std::string lineage, bool urgent, bool barrier) {
    Job job{next_job_++, std::move(txn), std::move(lineage), barrier && !mutant("barrier_skipped"), urgent};
    const JobId id = job.id;
    if (queue_.size() >= kMaxQueued) {
        results_.push_back({id, false, 0});
    } else if (urgent) {
        // Before what waits, after what is urgent too: nobody urgent may starve another.
        const auto at =
            std::find_if(queue_.begin(), queue_.end(), [](const Job& one) { return !one.urgent; });
        queue_.insert(at, std::move(job));
    } else {
        queue_.push_back(std::move(job));
    }
    return id;
}

void TxnQueue::chain_revision(std::uint64_t revision) {
    // A snapshot may be older than our own last link; while something is under way the answer to it tells
    // more.
    if (state_ == State::idle) chain_revision_ = revision;
}

void TxnQueue::finish(bool committed) {
    results_.push_back({current_->id, committed, committed ? main_revision_ : 0});
    current_.reset();
    state_ = State::idle;
}

void TxnQueue::main_committed(std::uint64_t revision) {
    chain_revision_ = revision;
    main_revision_ = revision;
    if (current_->barrier) {
        state_ = State::barrier;
    } else {
        finish(true);
    }
}

void TxnQueue::txn_done(Instant now, const TxnDone& done, Outputs&) {
    if (done.tag != tag_ || tag_ == 0) return;
    tag_ = 0;
    const bool committed = done.outcome == TxnOutcome::committed;
    switch (state_) {
        case State::main:
            if (committed) {
                main_committed(done.revision);
            } else if (done.outcome == TxnOutcome::compare_failed) {
                state_ = State::refreshing;
            } else if (mutant("operation_id_ignored")) {
                state_ = State::refreshing;
            } else {
                state_ = State::reading;
                not_before_ = now + kRetry;
            }
            break;
        case State::barrier:
            if (committed) {
                chain_revision_ = done.revision;
                finish(true);
            } else {
                state_ = State::reading;
                not_before_ = now + kRetry;
            }
            break;
        case State::sealing:
            if (committed) {
                chain_revision_ = done.revision;
                finish(false);
            } else {
                state_ = State::reading;
                not_before_ = now + kRetry;
            }
            break;
        case State::idle:
        case State::reading:
        case State::refreshing: break;
    }
}

bool TxnQueue::read_done(Instant now, const ReadDone& done, Outputs&) {
    if (done.tag != tag_ || tag_ == 0) return false;
    tag_ = 0;
    if (!done.ok) {
        not_before_ = now + kRetry;
        return true;
    }
    AppliedRecord applied;
    std::uint64_t revision = 0;
    for (const auto& value : done.values) {
        if (value.key != keys::applied(node_)) continue;
        revision = value.mod_revision;
        if (auto record = decode<AppliedRecord>(value.value)) applied = *record;
    }
    chain_revision_ = revision;
    if (state_ == State::refreshing) {
        if (current_) {
            finish(false);
        } else {
            state_ = State::idle;
        }
    } else if (state_ == State::reading) {
        answered(applied, revision);
    }
    return true;
}

void TxnQueue::answered(const AppliedRecord& applied, std::uint64_t revision) {
    if (applied.operation == main_id_) {
        main_committed(revision);
    } else if (main_revision_ != 0 && applied.operation == link_id_) {
        finish(true);  // the lost reply was the barrier's
    } else if (main_revision_ != 0) {
        // Someone else wrote our chain after our transaction, or the store forgot it (forced): only the
        // record tells.
        finish(false);
    } else {
        state_ = State::sealing;
    }
}

void TxnQueue::send(std::string kind, Txn txn, Tag& next_tag, Prng& prng, Outputs& outputs) {
    const auto id = OperationId::from_random(prng.next(), prng.next());
    (kind == "txn" ? main_id_ : link_id_) = id;
    const std::string key = keys::applied(node_);
    txn.compares.push_back({key, CompareKind::mod_revision, *chain_revision_, {}});
    // Barrier and seal only move the chain of the store they land in; the transaction itself names its
    // lineage. With the old lineage they could never land again in a forced store, and the job would never
    // end.
    const bool main = kind == "txn";
    if (main) txn.lineage = current_->lineage;
    if (main && !current_->lineage.empty() && !mutant("lineage_not_compared")) {
        txn.compares.push_back({std::string(keys::kLineage), CompareKind::value, 0, current_->lineage});
    }
    txn.puts.push_back({key, encode(AppliedRecord{id, std::move(kind)}), 0});
    tag_ = next_tag++;
    outputs.push_back(SubmitTxn{tag_, std::move(txn)});
}

void TxnQueue::pump(Instant now, Tag& next_tag, Prng& prng, Outputs& outputs) {
    if (tag_ != 0) return;
    if (state_ == State::idle && !queue_.empty()) {
        if (!chain_revision_) {
            if (now < not_before_) return;
            state_ = State::refreshing;
        } else {
            current_ = std::move(queue_.front());
            queue_.pop_front();
            main_revision_ = 0;
            link_id_ = {};
            state_ = State::main;
        }
    }
    switch (state_) {
        case State::idle: return;
        case State::main: return send("txn", std::exchange(current_->txn, {}), next_tag, prng, outputs);
        case State::barrier: return send("barrier", {}, next_tag, prng, outputs);
        case State::sealing: return send("seal", {}, next_tag, prng, outputs);
        case State::reading:
        case State::refreshing:
            if (now < not_before_) return;
            tag_ = next_tag++;
            outputs.push_back(StoreRead{tag_, {keys::applied(node_)}, false, false});
            return;
    }
}

std::vector<JobResult> TxnQueue::take_results() {
    return std::exchange(results_, {});
}

}  // namespace gemel::cluster
