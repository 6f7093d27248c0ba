// Witness: runs the witness's etcd and sees to it that an old or empty store never votes (design brief 3.5,
// scenarios H7, H8).
//
//   no data, a new cluster may be begun --> etcd begins it, once; the permission ends when it serves
//   no data                             --> waits until the cluster has added this address as a learner; then
//   etcd
//                                           starts with nothing, and gets everything from the leader
//   data                                --> etcd goes on with them
//   etcd ends: "removed"                --> its data are renamed and kept; it waits to be added again
//
// It decides nothing: adding, promoting and removing are the coordinator's committed changes.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <sys/types.h>

#include "adapters/etcd/client.hpp"
#include "daemons/witness/witness_config.hpp"

namespace gemel::witness {

class Witness {
  public:
    explicit Witness(WitnessConfig config, std::filesystem::path config_file);
    // Until stop(). Error: etcd cannot be run, or ended for another reason: start again.
    Status run();
    void stop();  // any thread

  private:
    Status run_etcd(const std::filesystem::path& config_file);
    Result<std::vector<etcd::Member>> wait_to_be_added();
    Status set_aside();
    void look();
    bool has_data() const;
    std::filesystem::path log() const { return config_.data_directory.string() + ".log"; }
    std::filesystem::path pending() const;
    bool pause(Duration duration) const;

    WitnessConfig config_;
    std::filesystem::path config_file_;
    std::atomic<bool> stop_{false};
    std::atomic<pid_t> child_{0};
};

}  // namespace gemel::witness
