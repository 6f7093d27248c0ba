// LineSocket: a non-blocking stream socket that gives whole lines and queues whole lines, with bounds. For
// the loops of control_socket.cpp only; one thread.
#pragma once

#include <string>
#include <sys/un.h>
#include <vector>

#include "adapters/ipc/control_socket.hpp"

namespace gemel::ipc {

class LineSocket {
  public:
    explicit LineSocket(int fd) : fd_(fd) {}
    ~LineSocket();
    LineSocket(LineSocket&& other) noexcept;
    LineSocket& operator=(LineSocket&&) = delete;
    LineSocket(const LineSocket&) = delete;

    int fd() const { return fd_; }
    bool wants_write() const { return !output_.empty(); }
    // false: the other side is gone or broke a bound
    bool read_lines(std::vector<std::string>& lines);
    bool queue(std::string line);
    bool flush();

  private:
    int fd_ = -1;
    std::string input_;
    std::string output_;
};

// An eventfd that makes a poll() return.
class Waker {
  public:
    Waker();
    ~Waker();
    Waker(const Waker&) = delete;
    Waker& operator=(const Waker&) = delete;
    int fd() const { return fd_; }
    void wake() const;
    void drain() const;

  private:
    int fd_ = -1;
};

// the first line of both sides
std::string hello_line(const std::string& role);
// the role named by a hello line, or why it is none
Result<std::string> check_hello(const std::string& line);
int unix_socket(const std::string& path, sockaddr_un& address);

}  // namespace gemel::ipc
