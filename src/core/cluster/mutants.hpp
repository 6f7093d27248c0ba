// The control plane's mutants: each removes one rule (docs/design/0003, 0004). The simulator must find every
// one.
#pragma once

#include <array>
#include <string_view>

namespace gemel::cluster {

struct MutantName {
    std::string_view name;
    std::string_view breaks;  // the rule that is gone
};

inline constexpr std::array kMutants{
    MutantName{"standing_ignored", "a node without standing forces and fences (C6, H27)"},
    MutantName{"open_vote_ignored", "a learner takes itself for one of two voters (C6)"},
    MutantName{"barrier_skipped", "with two voters a transaction counts without its barrier (H34)"},
    MutantName{"lineage_not_compared", "transactions land in another lineage (H35)"},
    MutantName{"term_not_compared", "an old coordinator's transactions still land (H11)"},
    MutantName{"term_not_checked_at_action", "an old coordinator's fence is still executed (H11)"},
    MutantName{"leave_without_new_revision", "a leave that changes nothing is not stored again (H37)"},
    MutantName{"regrant_before_refusal", "confirm-down regrants at once (C2)"},
    MutantName{"fence_unverified_accepted", "a fence that timed out counts as success (H3)"},
    MutantName{"fence_any_incarnation", "a fence proves any life of the node (C6)"},
    MutantName{"proof_unbounded", "a proof never grows old (H36)"},
    MutantName{"proof_not_voided", "a message of the dead life does not void its proof (design brief 3.4)"},
    MutantName{"revision_not_compared", "transactions do not compare what they read (H12)"},
    MutantName{"operation_id_ignored", "a lost reply is taken for a refusal (H10)"},
    MutantName{"start_without_lookup", "a guest is started without looking for its domain (C1)"},
    MutantName{"promote_outdated", "a replica outside the ack set is promoted (D9, G2)"},
    MutantName{"promote_unfenced", "a volume is regranted while its owner may live (C3)"},
    MutantName{"ask_skipped", "a node that answers is fenced without asking (N3, H29)"},
    MutantName{"boot_check_skipped", "a booted node acts before it asked everybody (design brief 3.5)"},
    MutantName{"nonce_ignored", "a member from an old image votes (H39)"},
    MutantName{"fence_delay_skipped", "both nodes fence at once (H2)"},
    MutantName{"restarts_unbounded", "a guest that kills its host is started for ever (C10)"},
    MutantName{"guard_never_kills", "the guard leaves a guest without a right alone (C1)"},
};

}  // namespace gemel::cluster
