#include "daemons/blockd/store_renewer.hpp"

#include <chrono>
#include <unistd.h>
#include <utility>

#include "adapters/log/log.hpp"
#include "adapters/ring/reactor.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::blockd {
namespace {

constexpr Duration kReadTimeout = milliseconds(1500);

}  // namespace

std::unique_ptr<StoreRenewer> StoreRenewer::create(const NodeConfig& config, Deliver deliver,
                                                   std::string& why) {
    etcd::ClientOptions options;
    std::vector<std::string> urls;
    if (!config.client_url.empty()) urls.push_back(config.client_url);
    for (const auto& member : config.members) {
        if (member.client_url != config.client_url) urls.push_back(member.client_url);
    }
    for (const auto& url : urls) {
        auto address = http::Address::parse(url);
        if (address) options.endpoints.push_back(*address);
    }
    options.tls = http::TlsFiles{config.pki("ca.crt"), config.pki("node.crt"), config.pki("node.key")};
    if (options.endpoints.empty()) {
        why = "no member of the store is configured";
        return nullptr;
    }
    for (const auto& file : {options.tls->ca, options.tls->certificate, options.tls->key}) {
        if (::access(file.c_str(), R_OK) == 0) continue;
        why = "cannot read " + file;
        return nullptr;
    }
    return std::unique_ptr<StoreRenewer>(
        new StoreRenewer(std::move(options), config.timing.lease / 3, std::move(deliver)));
}

StoreRenewer::StoreRenewer(etcd::ClientOptions options, Duration interval, Deliver deliver)
    : client_(std::move(options)),
      interval_(interval),
      deliver_(std::move(deliver)),
      thread_([this] { run(); }) {}

StoreRenewer::~StoreRenewer() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    client_.cancel();
    wakeup_.notify_all();
    thread_.join();
}

void StoreRenewer::run() {
    bool complained = false;
    for (;;) {
        const Status read = read_once();
        std::unique_lock lock(mutex_);
        if (stopping_) return;
        if (!read && !complained) log::warning("cannot renew leases at the store: " + read.error().message);
        if (read && complained) log::info("leases are renewed at the store again");
        complained = !read;
        wakeup_.wait_for(lock, std::chrono::nanoseconds(interval_.nanoseconds), [this] { return stopping_; });
        if (stopping_) return;
    }
}

Result<LineageId> StoreRenewer::read_lineage() {
    const auto got = client_.get(std::string(keys::kLineage), kReadTimeout);
    if (!got) return tl::unexpected<Error>(got.error());
    if (got->pairs.empty()) return fail(ErrorCode::not_found, "the store holds no cluster yet");
    const auto record = decode<LineageRecord>(got->pairs.front().value);
    if (!record) return tl::unexpected<Error>(record.error());
    return record->id;
}

// The lineage is read on both sides of the records: a store that was forced in between would mix two
// histories.
Status StoreRenewer::read_once() {
    const auto before = read_lineage();
    if (!before) return tl::unexpected<Error>(before.error());
    const Instant sent_at = ring::Reactor::read_clock();
    const auto got = client_.get_prefix(std::string(keys::kVolumes), kReadTimeout);
    if (!got) return tl::unexpected<Error>(got.error());
    const auto after = read_lineage();
    if (!after) return tl::unexpected<Error>(after.error());
    if (*before != *after)
        return fail(ErrorCode::unavailable, "the store's lineage changed while it was read");
    std::vector<CommittedVolume> volumes;
    for (const auto& pair : got->pairs) {
        auto record = decode<VolumeRecord>(pair.value);
        if (!record) return tl::unexpected<Error>(record.error());
        volumes.push_back({std::move(*record), static_cast<std::uint64_t>(pair.mod_revision), *before});
    }
    deliver_(sent_at, volumes);
    return {};
}

}  // namespace gemel::blockd
