// The REST server of api/openapi.yaml on run_dir/clusterd.sock. Requests are posted to the loop, where the
// machine is read or commanded; answers go back from there. changed() is called by the loop after each step
// and feeds the streams.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "adapters/http/server.hpp"
#include "core/cluster/node.hpp"
#include "daemons/clusterd/api_json.hpp"
#include "daemons/clusterd/guest_driver.hpp"
#include "daemons/clusterd/loop.hpp"

namespace gemel::clusterd {

struct ApiParts {
    const Settings* settings = nullptr;
    Loop* loop = nullptr;
    GuestDriver* guests = nullptr;
    std::function<cluster::ClusterNode&()> node;      // on the loop
    std::function<void(const cluster::Input&)> step;  // on the loop
    std::function<std::int64_t(const std::string&, const std::string&)> round_trip_us;
};

class ApiServer {
  public:
    explicit ApiServer(ApiParts parts);
    ~ApiServer();
    ApiServer(const ApiServer&) = delete;
    ApiServer& operator=(const ApiServer&) = delete;

    Status start();
    // Loop's thread:
    void handle(const cluster::ApiAnswer& answer);
    void changed(Instant now);

  private:
    using Responder = std::shared_ptr<http::Responder>;
    using Read = std::function<void(const http::Request&, const Responder&)>;
    struct EventStream {
        Responder out;
        std::uint64_t after = 0;
        Instant last_line;
    };
    struct OperationStream {
        Responder out;
        OperationId id;
        std::string last;
        Instant last_line;
    };

    http::Router routes();
    void add_reads(http::Router& router);
    void add_lists(http::Router& router);
    void add_commands(http::Router& router);
    void on_loop(http::Router& router, const char* method, const char* path, Read read);
    void command(const std::string& route, const http::Request& request, const Responder& out);
    void check_xml(const http::Request& request, const Responder& out);
    void console(const std::string& name, const Responder& out);
    void begin_event_stream(const http::Request& request, const Responder& out);
    void feed_events(Instant now);
    void feed_operations(Instant now);
    api::Json render(const OperationRecord& record);
    std::int64_t started_ms(const std::string& id);

    ApiParts parts_;
    api::Renderer renderer_;
    std::map<cluster::Tag, Responder> waiting_;
    cluster::Tag next_tag_ = 1;
    std::vector<EventStream> event_streams_;
    std::vector<OperationStream> operation_streams_;
    std::map<std::string, std::int64_t> started_;
    std::unique_ptr<http::Server> server_;
};

}  // namespace gemel::clusterd
