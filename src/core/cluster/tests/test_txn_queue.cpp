// The chain of transactions: whatever reply is lost or late, a job is reported committed exactly when it is
// in the store, and what was reported refused never lands (H10); with a barrier only the barrier's success
// counts (H34).
#include <gtest/gtest.h>

#include "core/cluster/tests/store_model.hpp"
#include "core/cluster/txn_queue.hpp"

namespace gemel::cluster {
namespace {

using testing::StoreModel;

struct Harness {
    StoreModel store;
    TxnQueue queue{"node1"};
    Prng prng{1};
    Tag tag = 1;
    Instant now;
    Outputs outputs;
    std::vector<Txn> delayed;  // requests on their way that nobody answers any more

    // Runs until a result comes. fate(n): for the n-th request 0 answered, 1 applied but the reply is lost, 2
    // lost, 3 delayed until the end.
    template <typename Fate>
    JobResult run(Fate fate) {
        int n = 0;
        for (int i = 0; i < 200; ++i) {
            now = now + milliseconds(100);
            queue.pump(now, tag, prng, outputs);
            Outputs batch = std::move(outputs);
            outputs.clear();
            for (const auto& output : batch) answer(output, fate(n++));
            if (auto results = queue.take_results(); !results.empty()) return results.at(0);
        }
        ADD_FAILURE() << "no result";
        return {};
    }
    void answer(const Output& output, int what) {
        if (const auto* submit = std::get_if<SubmitTxn>(&output)) {
            TxnDone done{submit->tag, TxnOutcome::unknown, 0};
            if (what == 3) delayed.push_back(submit->txn);
            if (what <= 1) {
                const bool ok = store.apply(submit->txn);
                if (what == 0)
                    done = {submit->tag, ok ? TxnOutcome::committed : TxnOutcome::compare_failed,
                            store.revision()};
            }
            queue.txn_done(now, done, outputs);
        } else if (const auto* read = std::get_if<StoreRead>(&output)) {
            ReadDone done = store.read(*read, now);
            done.ok = what == 0;
            EXPECT_TRUE(queue.read_done(now, done, outputs));
        }
    }
};

Txn put(const std::string& key) {
    return {{{key, CompareKind::mod_revision, 0, {}}}, {{key, "x", 0}}, {}};
}

TEST(TxnQueue, EveryLossOfEveryReplyAndWithBarrier) {
    for (const bool barrier : {false, true}) {
        for (int word = 0; word < 4 * 4 * 4 * 4 * 4; ++word) {
            Harness h;
            h.queue.submit(put("k"), "", false, barrier);
            const auto result = h.run([&](int n) { return n < 5 ? (word >> (2 * n)) & 3 : 0; });
            for (const auto& txn : h.delayed) h.store.apply(txn);  // they arrive at last
            EXPECT_EQ(result.committed, h.store.find("k") != nullptr)
                << "word " << word << " barrier " << barrier;
            if (result.committed) {
                EXPECT_EQ(result.revision, h.store.find("k")->mod_revision);
            }
        }
    }
}

TEST(TxnQueue, WithABarrierASecondLinkFollows) {
    Harness h;
    h.queue.submit(put("k"), "", false, true);
    const auto result = h.run([](int) { return 0; });
    EXPECT_TRUE(result.committed);
    EXPECT_EQ(h.store.revision(), result.revision + 1);
}

TEST(TxnQueue, AnotherLineageRefuses) {
    Harness h;
    ASSERT_TRUE(h.store.apply({{}, {{std::string(keys::kLineage), "new", 0}}, {}}));
    h.queue.submit(put("k"), "old", false, false);
    EXPECT_FALSE(h.run([](int) { return 0; }).committed);
    EXPECT_EQ(h.store.find("k"), nullptr);
    h.queue.submit(put("k"), "new", false, false);
    EXPECT_TRUE(h.run([](int) { return 0; }).committed);
}

TEST(TxnQueue, UrgentGoesFirstAndFullRefuses) {
    TxnQueue queue("node1");
    std::vector<JobId> ids;
    for (std::size_t i = 0; i < TxnQueue::kMaxQueued; ++i)
        ids.push_back(queue.submit(put("a"), "", false, false));
    EXPECT_TRUE(queue.take_results().empty());
    const auto refused = queue.submit(put("b"), "", false, false);
    const auto results = queue.take_results();
    ASSERT_EQ(results.size(), 1U);
    EXPECT_EQ(results[0].job, refused);
    Harness h;
    h.queue.submit(put("a"), "", false, false);
    const auto urgent = h.queue.submit(put("b"), "", true, false);
    EXPECT_EQ(h.run([](int) { return 0; }).job, urgent);
}

}  // namespace
}  // namespace gemel::cluster
