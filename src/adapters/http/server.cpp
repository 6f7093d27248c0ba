#include "adapters/http/server.hpp"

#include <atomic>
#include <chrono>
#include <deque>
#include <fcntl.h>
#include <functional>
#include <netinet/in.h>
#include <optional>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <unordered_set>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <fmt/format.h>

#include "adapters/http/tls.hpp"

namespace gemel::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace wire = boost::beast::http;
using boost::system::error_code;
using LocalStream = beast::basic_stream<asio::local::stream_protocol>;
using TlsStream = beast::ssl_stream<beast::tcp_stream>;

// What all connections of a server share; outlives the server through the sessions that hold it.
struct Shared {
    Router router;
    ServerOptions options;
    asio::io_context io;
    std::size_t connections = 0;  // io thread only
    std::atomic<bool> stopped{false};
    std::unordered_set<class Sink*> sessions;  // io thread only
};

// The part of a session that a Responder talks to; every member may be called from any thread.
class Sink {
  public:
    virtual ~Sink() = default;
    Sink() = default;
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    virtual void post_response(std::uint64_t turn, Response response) = 0;
    virtual void post_stream_start(std::uint64_t turn, std::string content_type) = 0;
    virtual bool post_piece(std::uint64_t turn, std::string piece) = 0;
    virtual void post_finish(std::uint64_t turn) = 0;
    virtual void close() = 0;  // io thread
};

// `turn` is the number of the request on its connection: an answer that comes after the connection went on to
// another request (which cannot happen before this one was answered) or closed is dropped.
class SessionResponder final : public Responder {
  public:
    SessionResponder(std::shared_ptr<Sink> sink, std::uint64_t turn) : sink_(std::move(sink)), turn_(turn) {}
    ~SessionResponder() override {
        if (!started_.exchange(true)) {
            sink_->post_response(
                turn_, error_response({ErrorCode::internal, "the request was dropped without an answer"}));
        } else if (streaming_ && !finished_.exchange(true)) {
            sink_->post_finish(turn_);
        }
    }
    SessionResponder(const SessionResponder&) = delete;
    SessionResponder& operator=(const SessionResponder&) = delete;

    void respond(Response response) override {
        if (!started_.exchange(true)) sink_->post_response(turn_, std::move(response));
    }
    void begin_stream(std::string content_type) override {
        if (started_.exchange(true)) return;
        streaming_ = true;
        sink_->post_stream_start(turn_, std::move(content_type));
    }
    bool write(std::string piece) override {
        if (!streaming_ || finished_) return false;
        return piece.empty() || sink_->post_piece(turn_, std::move(piece));
    }
    void finish() override {
        if (streaming_ && !finished_.exchange(true)) sink_->post_finish(turn_);
    }

  private:
    std::shared_ptr<Sink> sink_;
    std::uint64_t turn_;
    std::atomic<bool> started_{false};
    std::atomic<bool> streaming_{false};
    std::atomic<bool> finished_{false};
};

Request to_request(const wire::request<wire::string_body>& in, const std::string& peer_name) {
    Request out;
    out.method = std::string(in.method_string().data(), in.method_string().size());
    std::string_view target(in.target().data(), in.target().size());
    std::string_view query;
    if (const auto mark = target.find('?'); mark != std::string_view::npos) {
        query = target.substr(mark + 1);
        target = target.substr(0, mark);
    }
    out.target = std::string(target);
    while (!query.empty()) {
        const auto end = query.find('&');
        const std::string_view pair = query.substr(0, end);
        const auto equals = pair.find('=');
        const auto value = equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1);
        if (!pair.empty()) out.query[percent_decoded(pair.substr(0, equals))] = percent_decoded(value);
        query.remove_prefix(end == std::string_view::npos ? query.size() : end + 1);
    }
    out.body = in.body();
    out.content_type = std::string(in[wire::field::content_type]);
    out.peer_name = peer_name;
    return out;
}

std::chrono::nanoseconds chrono(Duration duration) {
    return std::chrono::nanoseconds(duration.nanoseconds);
}

// One connection:  [handshake] -> reading -> handling -> writing -> reading ...
//                                                    \-> streaming -> closed
template <typename Stream>
class Session final : public Sink, public std::enable_shared_from_this<Session<Stream>> {
  public:
    Session(std::shared_ptr<Shared> shared, Stream stream)
        : shared_(std::move(shared)), stream_(std::move(stream)) {
        ++shared_->connections;
        shared_->sessions.insert(this);
    }
    ~Session() override {
        --shared_->connections;
        shared_->sessions.erase(this);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void begin() {
        if constexpr (std::is_same_v<Stream, TlsStream>) {
            deadline();
            stream_.async_handshake(asio::ssl::stream_base::server,
                                    [self = this->shared_from_this()](error_code error) {
                                        if (error) return;
                                        self->peer_name_ = peer_common_name(self->stream_.native_handle());
                                        self->read();
                                    });
        } else {
            read();
        }
    }

    void post_response(std::uint64_t turn, Response response) override {
        on_io([turn, response = std::move(response)](Session& self) mutable {
            if (turn == self.turn_) self.write(std::move(response));
        });
    }
    void post_stream_start(std::uint64_t turn, std::string content_type) override {
        on_io([turn, content_type = std::move(content_type)](Session& self) {
            if (turn == self.turn_) self.start_stream(content_type);
        });
    }
    bool post_piece(std::uint64_t turn, std::string piece) override {
        if (closed_) return false;
        if (queued_.fetch_add(piece.size()) + piece.size() > shared_->options.stream_queue_limit) {
            on_io([](Session& self) { self.close(); });
            return false;
        }
        on_io([turn, piece = std::move(piece)](Session& self) mutable {
            if (turn != self.turn_ || self.closed_) return;
            self.pieces_.push_back(std::move(piece));
            self.pump();
        });
        return true;
    }
    void post_finish(std::uint64_t turn) override {
        on_io([turn](Session& self) {
            if (turn != self.turn_) return;
            self.last_piece_ = true;
            self.pump();
        });
    }

    void close() override {
        if (closed_.exchange(true)) return;
        ++turn_;
        error_code ignored;
        beast::get_lowest_layer(stream_).socket().shutdown(asio::socket_base::shutdown_both, ignored);
        beast::get_lowest_layer(stream_).close();
    }

  private:
    template <typename Work>
    void on_io(Work work) {
        if (shared_->stopped) return;
        asio::post(shared_->io,
                   [self = this->shared_from_this(), work = std::move(work)]() mutable { work(*self); });
    }
    void deadline() { beast::get_lowest_layer(stream_).expires_after(chrono(shared_->options.idle_timeout)); }
    void no_deadline() { beast::get_lowest_layer(stream_).expires_never(); }

    void read() {
        parser_.emplace();
        parser_->header_limit(static_cast<std::uint32_t>(shared_->options.header_limit));
        parser_->body_limit(shared_->options.body_limit);
        deadline();
        wire::async_read(
            stream_, buffer_, *parser_,
            [self = this->shared_from_this()](error_code error, std::size_t) { self->handle(error); });
    }

    void handle(error_code error) {
        ++turn_;
        if (error == wire::error::body_limit || error == wire::error::header_limit) {
            keep_alive_ = false;
            auto refusal = error_response({ErrorCode::invalid_argument,
                                           fmt::format("the request is too large: at most {} bytes are taken",
                                                       shared_->options.body_limit)});
            write(std::move(refusal));
            return;
        }
        if (error) {
            close();
            return;
        }
        const auto message = parser_->release();
        keep_alive_ = message.keep_alive();
        Request request = to_request(message, peer_name_);
        auto match = shared_->router.find(request.method, request.target);
        no_deadline();
        if (match.handler == nullptr) {
            write(error_response(match.error));
            return;
        }
        request.parameters = std::move(match.parameters);
        request.target = percent_decoded(request.target);
        (*match.handler)(request, std::make_shared<SessionResponder>(this->shared_from_this(), turn_));
    }

    void write(Response response) {
        auto message = std::make_shared<wire::response<wire::string_body>>();
        message->version(11);
        message->result(response.status);
        message->set(wire::field::content_type, response.content_type);
        message->body() = std::move(response.body);
        message->keep_alive(keep_alive_);
        message->prepare_payload();
        deadline();
        wire::async_write(stream_, *message,
                          [self = this->shared_from_this(), message](error_code error, std::size_t) {
                              if (error || !self->keep_alive_) {
                                  self->close();
                              } else {
                                  self->read();
                              }
                          });
    }

    void start_stream(const std::string& content_type) {
        header_.emplace();
        header_->version(11);
        header_->result(wire::status::ok);
        header_->set(wire::field::content_type, content_type);
        header_->chunked(true);
        header_->keep_alive(false);
        serializer_.emplace(*header_);
        writing_ = true;
        wire::async_write_header(
            stream_, *serializer_,
            [self = this->shared_from_this()](error_code error, std::size_t) { self->wrote(error, 0); });
        watch_end();
    }

    // While streaming, the client has nothing to say: whatever comes, an end most of all, closes.
    void watch_end() {
        stream_.async_read_some(asio::buffer(&byte_, 1), [self = this->shared_from_this()](
                                                             error_code, std::size_t) { self->close(); });
    }

    void pump() {
        if (closed_ || writing_ || !serializer_) return;
        if (pieces_.empty()) {
            if (!last_piece_ || ended_) return;
            ended_ = true;
            writing_ = true;
            asio::async_write(stream_, wire::make_chunk_last(),
                              [self = this->shared_from_this()](error_code, std::size_t) { self->close(); });
            return;
        }
        writing_ = true;
        current_ = std::move(pieces_.front());
        pieces_.pop_front();
        const std::size_t size = current_.size();
        asio::async_write(stream_, wire::make_chunk(asio::buffer(current_)),
                          [self = this->shared_from_this(), size](error_code error, std::size_t) {
                              self->wrote(error, size);
                          });
    }

    void wrote(error_code error, std::size_t size) {
        writing_ = false;
        queued_ -= size;
        if (error) {
            close();
        } else {
            pump();
        }
    }

    std::shared_ptr<Shared> shared_;
    Stream stream_;
    std::string peer_name_;
    beast::flat_buffer buffer_;
    std::optional<wire::request_parser<wire::string_body>> parser_;
    std::optional<wire::response<wire::empty_body>> header_;
    std::optional<wire::response_serializer<wire::empty_body>> serializer_;
    std::deque<std::string> pieces_;
    std::string current_;
    std::atomic<std::size_t> queued_{0};
    std::atomic<bool> closed_{false};
    std::uint64_t turn_ = 0;
    char byte_ = 0;
    bool keep_alive_ = true;
    bool writing_ = false;
    bool last_piece_ = false;
    bool ended_ = false;
};

Status claim_socket_path(const std::string& path) {
    if (path.size() >= sizeof(sockaddr_un::sun_path))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is too long for a unix socket's path", path));
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0) return {};
    if (!S_ISSOCK(status.st_mode))
        return fail(ErrorCode::already_exists, fmt::format("{} exists and is no socket; move it away", path));
    asio::io_context io;
    asio::local::stream_protocol::socket probe(io);
    error_code error;
    probe.connect(asio::local::stream_protocol::endpoint(path), error);
    if (!error)
        return fail(ErrorCode::already_exists, fmt::format("another process already answers on {}", path));
    ::unlink(path.c_str());
    return {};
}

}  // namespace

struct Server::Impl {
    std::shared_ptr<Shared> shared = std::make_shared<Shared>();
    std::vector<std::unique_ptr<asio::local::stream_protocol::acceptor>> locals;
    struct TlsListener {
        std::unique_ptr<asio::ip::tcp::acceptor> acceptor;
        std::unique_ptr<asio::ssl::context> context;
    };
    std::vector<TlsListener> remotes;
    std::vector<std::string> paths;
    std::thread thread;

    void accept_local(asio::local::stream_protocol::acceptor& acceptor) {
        acceptor.async_accept(
            [this, &acceptor](error_code error, asio::local::stream_protocol::socket socket) {
                if (!acceptor.is_open()) return;
                if (!error && shared->connections < shared->options.max_connections)
                    std::make_shared<Session<LocalStream>>(shared, LocalStream(std::move(socket)))->begin();
                accept_local(acceptor);
            });
    }
    void accept_remote(TlsListener& listener) {
        listener.acceptor->async_accept([this, &listener](error_code error, asio::ip::tcp::socket socket) {
            if (!listener.acceptor->is_open()) return;
            if (!error && shared->connections < shared->options.max_connections) {
                error_code ignored;
                socket.set_option(asio::ip::tcp::no_delay(true), ignored);
                std::make_shared<Session<TlsStream>>(
                    shared, TlsStream(beast::tcp_stream(std::move(socket)), *listener.context))
                    ->begin();
            }
            accept_remote(listener);
        });
    }
};

Server::Server(Router router, ServerOptions options) : impl_(std::make_shared<Impl>()) {
    impl_->shared->router = std::move(router);
    impl_->shared->options = options;
}

Server::~Server() {
    stop();
}

Status Server::listen_unix(const std::string& path, unsigned mode) {
    if (auto ok = claim_socket_path(path); !ok) return ok;
    auto acceptor = std::make_unique<asio::local::stream_protocol::acceptor>(impl_->shared->io);
    error_code error;
    acceptor->open({}, error);
    // A program started from here must not keep the socket when this process is gone.
    if (!error) ::fcntl(acceptor->native_handle(), F_SETFD, FD_CLOEXEC);
    const mode_t old = ::umask(0777 & ~mode);
    if (!error) acceptor->bind(asio::local::stream_protocol::endpoint(path), error);
    ::umask(old);
    if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
    if (error)
        return fail(ErrorCode::io_error, fmt::format("cannot listen on {}: {}", path, error.message()));
    impl_->locals.push_back(std::move(acceptor));
    impl_->paths.push_back(path);
    return {};
}

Result<std::uint16_t> Server::listen_tls(const std::string& host, std::uint16_t port, const TlsFiles& tls) {
    auto context = make_tls_context(tls, TlsRole::server);
    if (!context) return tl::unexpected<Error>(context.error());
    error_code error;
    const auto address = asio::ip::make_address(host, error);
    if (error)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a literal IP address to listen on", host));
    auto acceptor = std::make_unique<asio::ip::tcp::acceptor>(impl_->shared->io);
    acceptor->open(address.is_v6() ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), error);
    if (!error) acceptor->set_option(asio::socket_base::reuse_address(true), error);
    // The address may appear later than the daemon: at boot, or when a link's interface comes back.
    const int on = 1;
    ::setsockopt(acceptor->native_handle(), SOL_IP, IP_FREEBIND, &on, sizeof on);
    if (!error) acceptor->bind({address, port}, error);
    if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
    if (error)
        return fail(ErrorCode::io_error,
                    fmt::format("cannot listen on {}:{}: {}", host, port, error.message()));
    const std::uint16_t bound = acceptor->local_endpoint(error).port();
    impl_->remotes.push_back({std::move(acceptor), std::make_unique<asio::ssl::context>(context->release())});
    return bound;
}

void Server::start() {
    for (auto& acceptor : impl_->locals) impl_->accept_local(*acceptor);
    for (auto& listener : impl_->remotes) impl_->accept_remote(listener);
    impl_->thread = std::thread([impl = impl_.get()] { impl->shared->io.run(); });
}

void Server::stop() {
    if (impl_->shared->stopped.exchange(true)) return;
    // Everything is closed on the io thread, which then runs out of work and ends.
    asio::post(impl_->shared->io, [impl = impl_.get()] {
        error_code ignored;
        for (auto& acceptor : impl->locals) acceptor->close(ignored);
        for (auto& listener : impl->remotes) listener.acceptor->close(ignored);
        const auto sessions = impl->shared->sessions;
        for (Sink* session : sessions) session->close();
    });
    if (impl_->thread.joinable()) {
        impl_->thread.join();
    } else {
        impl_->shared->io.run();
    }
    for (const auto& path : impl_->paths) ::unlink(path.c_str());
    impl_->paths.clear();
}

}  // namespace gemel::http
