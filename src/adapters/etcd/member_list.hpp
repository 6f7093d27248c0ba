// Which members of the store are asked, and in which order: the preferred one (our own) first, those that
// failed last. One list is shared by all clients of a process, so that a dead member costs one call its
// share of time and not every call. A member that failed is preferred again when served() was told of it
// (by whoever looks, or by a call that found it working), or after `forget_after`.
//
// Any thread. Not here: looking. Nothing is asked from here.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "adapters/http/address.hpp"

namespace gemel::etcd {

class MemberList {
  public:
    using Clock = std::chrono::steady_clock;

    // In the order of preference; never empty.
    explicit MemberList(std::vector<http::Address> members,
                        Clock::duration forget_after = std::chrono::seconds(5));

    // Another set, e.g. the committed voters; what is known of those that stay is kept.
    void set(const std::vector<http::Address>& members);
    std::vector<http::Address> preference();
    // All, in the order in which a call should try them.
    std::vector<http::Address> in_order();
    http::Address best() { return in_order().front(); }
    bool is_suspect(const http::Address& member);
    void failed(const http::Address& member);
    // It did what was asked of it at `begun` or later. A failure after that stands.
    void served(const http::Address& member, Clock::time_point begun);

  private:
    struct Entry {
        http::Address address;
        bool suspect = false;
        Clock::time_point failed_at{};
    };
    void forget_old();
    Entry* find(const http::Address& member);

    std::mutex mutex_;
    std::vector<Entry> entries_;
    Clock::duration forget_after_;
};

}  // namespace gemel::etcd
