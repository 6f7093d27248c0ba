#include "cli/resync_rate.hpp"

#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr Duration kLeastApart = milliseconds(100);  // looks that follow a change of the window's size

bool has_list(const Json& object, const char* key) {
    return has(object, key) && object.at(key).is_array();
}

}  // namespace

void ResyncRates::complete(Json& status, Instant now) {
    if (!has_list(status, "volumes")) return;
    for (Json& volume : status["volumes"]) {
        if (!has_list(volume, "replicas")) continue;
        for (Json& replica : volume["replicas"]) {
            const std::string key = text_of(volume, "name") + "/" + text_of(replica, "node");
            if (number_of(object_of(replica, "resync"), "total_bytes") > 0) {
                complete_one(key, replica["resync"], now);
            } else {
                samples_.erase(key);
            }
        }
    }
}

void ResyncRates::complete_one(const std::string& key, Json& resync, Instant now) {
    const std::int64_t done = number_of(resync, "done_bytes");
    const auto [at, first] = samples_.try_emplace(key, Sample{done, now, 0});
    Sample& sample = at->second;
    const std::int64_t passed_ms = (now - sample.at).milliseconds();
    if (done < sample.done_bytes) {
        sample = {done, now, 0};  // another one has begun
    } else if (!first && now - sample.at >= kLeastApart) {
        sample = {done, now, (done - sample.done_bytes) * 1000 / passed_ms};
    }
    if (sample.rate > 0 && !has(resync, "rate_bytes_per_s")) resync["rate_bytes_per_s"] = sample.rate;
}

}  // namespace gemel::cli
