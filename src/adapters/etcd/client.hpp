// A blocking client of etcd 3.4's v3 API over its JSON gateway: kept connections, mutual TLS, a deadline on
// every call. Members are tried in the order of a MemberList: the preferred one (our own) first, those that
// failed last. One thread uses a Client at a time; make one per purpose, so that a slow transaction does not
// delay a lease's renewal; let them share the list.
//
// Reads are linearizable unless said otherwise: the answer was true at some instant after the call began.
// Nothing that changes the store is ever sent twice.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/etcd/member_list.hpp"
#include "adapters/etcd/messages.hpp"
#include "adapters/http/address.hpp"
#include "base/instant.hpp"

namespace gemel::etcd {

struct ClientOptions {
    std::vector<http::Address> endpoints;  // at least one, unless `members` is given
    std::optional<http::TlsFiles> tls{};
    Duration connect_timeout = milliseconds(300);  // of one member, where there are others to try
    std::shared_ptr<MemberList> members{};         // shared with other clients; null: one of `endpoints`
};

class Client {
  public:
    explicit Client(ClientOptions options);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    TransactionResult commit(const Transaction& transaction, Duration timeout);

    // Range steps only, all as of one revision.
    TransactionResult read(const std::vector<Step>& ranges, Duration timeout);
    Result<RangeResult> get(const std::string& key, Duration timeout);
    Result<RangeResult> get_prefix(const std::string& prefix, Duration timeout);
    // What the answering member has stored, quorate or not: for status and for looking at an old store only.
    Result<RangeResult> get_prefix_serializable(const std::string& prefix, Duration timeout);

    Result<std::int64_t> lease_grant(std::int64_t ttl_s, Duration timeout);
    // The time-to-live it has now; 0: there is no such lease any more.
    Result<std::int64_t> lease_keepalive(std::int64_t lease, Duration timeout);
    Status lease_revoke(std::int64_t lease, Duration timeout);

    Result<std::vector<Member>> members(Duration timeout);
    Result<std::vector<Member>> add_learner(const std::string& peer_url, Duration timeout);
    Status promote(std::uint64_t member, Duration timeout);
    Status remove_member(std::uint64_t member, Duration timeout);
    // Of the first endpoint that answers; works without quorum.
    Result<MemberStatus> status(Duration timeout);
    Status compact(std::int64_t revision, Duration timeout);

    // Any thread: the call under way and all later ones fail.
    void cancel();

  private:
    TransactionResult transact(const Transaction& transaction, Duration timeout, bool harmless);
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::etcd
