// Connection: one client on one socket of a front end, and Door: such a socket and what speaks behind it
// (NBD, vhost-user). One thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace gemel::front {

class Connection {
  public:
    struct Handlers {
        std::function<void(const std::string& line)> log;
        // everything has ended; destroy it (not from inside the call)
        std::function<void(Connection&)> ended;
    };

    virtual ~Connection() = default;
    virtual void start() = 0;
    // No more answers but to what succeeds; ended() comes when the last request in flight is done.
    virtual void close() = 0;
};

struct Door {
    std::string protocol;         // names the socket's directory: run_dir/nbd, run_dir/vhost
    std::size_t connections = 1;  // at a time
    // takes the descriptor
    std::function<std::unique_ptr<Connection>(int fd, Connection::Handlers handlers)> connect;
};

}  // namespace gemel::front
