#include "adapters/etcd/member_list.hpp"

#include <algorithm>

#include "base/invariant.hpp"

namespace gemel::etcd {

MemberList::MemberList(std::vector<http::Address> members, Clock::duration forget_after)
    : forget_after_(forget_after) {
    INVARIANT(!members.empty(), "a client of the store has an endpoint");
    for (auto& member : members) entries_.push_back({std::move(member)});
}

MemberList::Entry* MemberList::find(const http::Address& member) {
    for (auto& entry : entries_)
        if (entry.address == member) return &entry;
    return nullptr;
}

void MemberList::set(const std::vector<http::Address>& members) {
    INVARIANT(!members.empty(), "a client of the store has an endpoint");
    const std::scoped_lock lock(mutex_);
    std::vector<Entry> next;
    for (const auto& member : members) {
        const auto* known = find(member);
        next.push_back(known != nullptr ? *known : Entry{member});
    }
    entries_ = std::move(next);
}

void MemberList::forget_old() {
    const auto now = Clock::now();
    for (auto& entry : entries_)
        if (entry.suspect && now - entry.failed_at > forget_after_) entry.suspect = false;
}

std::vector<http::Address> MemberList::in_order() {
    const std::scoped_lock lock(mutex_);
    forget_old();
    std::vector<http::Address> out;
    for (const bool suspect : {false, true})
        for (const auto& entry : entries_)
            if (entry.suspect == suspect) out.push_back(entry.address);
    return out;
}

std::vector<http::Address> MemberList::preference() {
    const std::scoped_lock lock(mutex_);
    std::vector<http::Address> out;
    for (const auto& entry : entries_) out.push_back(entry.address);
    return out;
}

bool MemberList::is_suspect(const http::Address& member) {
    const std::scoped_lock lock(mutex_);
    forget_old();
    const auto* entry = find(member);
    return entry != nullptr && entry->suspect;
}

void MemberList::failed(const http::Address& member) {
    const std::scoped_lock lock(mutex_);
    if (auto* entry = find(member)) {
        entry->suspect = true;
        entry->failed_at = Clock::now();
    }
}

void MemberList::served(const http::Address& member, Clock::time_point begun) {
    const std::scoped_lock lock(mutex_);
    auto* entry = find(member);
    if (entry != nullptr && entry->suspect && begun >= entry->failed_at) entry->suspect = false;
}

}  // namespace gemel::etcd
