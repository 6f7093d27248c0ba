#include "daemons/clusterd/store_health.hpp"

#include <chrono>

#include "adapters/etcd/process.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::clusterd {
namespace {

constexpr Duration kProbeTimeout = milliseconds(400);
constexpr auto kInterval = std::chrono::milliseconds(500);

}  // namespace

StoreHealthProbe::StoreHealthProbe(const Settings& settings, etcd::Process process, std::string log_file,
                                   std::shared_ptr<etcd::MemberList> members,
                                   std::function<void(const cluster::StoreHealth&)> report)
    : settings_(settings),
      process_(std::move(process)),
      log_file_(std::move(log_file)),
      in_use_(std::move(members)),
      report_(std::move(report)),
      thread_([this] { run(); }) {}

StoreHealthProbe::~StoreHealthProbe() {
    {
        const std::scoped_lock lock(mutex_);
        stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void StoreHealthProbe::look_now() {
    {
        const std::scoped_lock lock(mutex_);
        now_ = true;
    }
    wake_.notify_one();
}

void StoreHealthProbe::run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        now_ = false;
        lock.unlock();
        const auto health = look();
        lock.lock();
        if (stop_) return;
        report_(health);
        lock.unlock();
        try_again_those_that_failed();
        lock.lock();
        wake_.wait_for(lock, kInterval, [this] { return stop_ || now_; });
    }
}

Result<etcd::MemberStatus> StoreHealthProbe::status_of(const std::string& client_url) {
    auto& client = clients_[client_url];
    if (!client) {
        const auto address = http::Address::parse(client_url);
        if (!address) return tl::unexpected<Error>(address.error());
        client = std::make_unique<etcd::Client>(etcd::ClientOptions{{*address}, settings_.tls});
    }
    return client->status(kProbeTimeout);
}

// A member without a leader answers a status, so only a linearizable read tells. The first one that serves is
// enough: those behind it are not preferred.
void StoreHealthProbe::try_again_those_that_failed() {
    const auto order = in_use_->preference();
    for (const auto& member : order) {
        if (!in_use_->is_suspect(member)) return;
        const auto status = status_of(member.to_string());
        if (!status || status->leader == 0 || status->learner) continue;
        const auto begun = etcd::MemberList::Clock::now();
        if (!clients_[member.to_string()]->get(std::string(keys::kLineage), kProbeTimeout)) continue;
        in_use_->served(member, begun);
        return;
    }
}

cluster::StoreHealth StoreHealthProbe::look() {
    cluster::StoreHealth out;
    std::uint64_t leader = 0;
    std::uint64_t newest = 0;
    if (settings_.file.voter) {
        out.running = process_.find() != 0;
        if (out.running) {
            const auto own = status_of(settings_.file.client_url);
            out.answers = own.has_value();
            if (own) {
                leader = own->leader;
                newest = own->raft_index;
            }
        } else {
            out.rejected = etcd::says_removed(log_file_);
        }
    }
    std::vector<std::string> sources{settings_.file.client_url};
    for (const auto& member : settings_.file.members) sources.push_back(member.client_url);
    // A list from our own member is good without quorum too; from others only where we are no voter.
    for (const auto& url : sources) {
        if (url.empty() || (settings_.file.voter && !out.answers)) continue;
        const auto status = status_of(url);
        if (!status) continue;
        if (leader == 0) leader = status->leader;
        auto listed = clients_[url]->members(kProbeTimeout);
        if (!listed) continue;
        members_ = std::move(*listed);
        break;
    }
    for (const auto& member : members_) {
        cluster::StoreMemberView view;
        view.name = member.name;
        view.peer_url = member.peer_urls.empty() ? "" : member.peer_urls.front();
        view.id = member.id;
        view.learner = member.learner;
        if (!member.client_urls.empty()) {
            const auto status = status_of(member.client_urls.front());
            view.answers = status.has_value();
            constexpr std::uint64_t kCloseEnough = 1000;
            view.learner_ready = status && status->raft_applied_index + kCloseEnough >= newest;
        }
        if (member.id == leader) out.leader = member.name;
        out.members.push_back(std::move(view));
    }
    return out;
}

}  // namespace gemel::clusterd
