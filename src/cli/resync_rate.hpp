// How fast resyncs go: computed from two looks at the status, because a node that answers knows how much is
// done and not how fast. Pure: the time is an argument.
#pragma once

#include <map>
#include <string>

#include "base/instant.hpp"
#include "cli/api_client.hpp"

namespace gemel::cli {

class ResyncRates {
  public:
    // Fills rate_bytes_per_s of each resync that the answer leaves open and that was seen before.
    void complete(Json& status, Instant now);

  private:
    struct Sample {
        std::int64_t done_bytes = 0;
        Instant at;
        std::int64_t rate = 0;  // of the two looks before; 0: not known yet
    };
    void complete_one(const std::string& key, Json& resync, Instant now);

    std::map<std::string, Sample> samples_;  // volume and node
};

}  // namespace gemel::cli
