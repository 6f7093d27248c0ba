// Finds the handler of a request. Patterns are paths whose parts may be {names}: "/v1/volumes/{name}". Filled
// before the server starts, unchanged afterwards, so it needs no lock.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/http/message.hpp"

namespace gemel::http {

// The way back to one client. May be kept and used from any thread, also after the client has gone. A
// Responder that is dropped without an answer answers 500 itself.
class Responder {
  public:
    virtual ~Responder() = default;
    Responder() = default;
    Responder(const Responder&) = delete;
    Responder& operator=(const Responder&) = delete;

    // The whole answer. Only the first of respond() and begin_stream() has an effect.
    virtual void respond(Response response) = 0;
    // Starts an answer of unknown length; write() pieces follow until finish().
    virtual void begin_stream(std::string content_type) = 0;
    // False when the client is gone or has not read for so long that the bound on its queue is reached (the
    // connection is closed then); nothing more needs to be written.
    virtual bool write(std::string piece) = 0;
    virtual void finish() = 0;
};

using Handler = std::function<void(const Request&, std::shared_ptr<Responder>)>;

class Router {
  public:
    void add(std::string method, std::string_view pattern, Handler handler);

    struct Match {
        const Handler* handler = nullptr;  // null: see error
        std::map<std::string, std::string> parameters;
        Error error;
    };
    Match find(std::string_view method, std::string_view path) const;

  private:
    struct Route {
        std::string method;
        std::vector<std::string> parts;
        Handler handler;
    };
    std::vector<Route> routes_;
};

}  // namespace gemel::http
