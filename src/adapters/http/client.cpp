#include "adapters/http/client.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

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

std::chrono::nanoseconds chrono(Duration duration) {
    return std::chrono::nanoseconds(duration.nanoseconds);
}

// One open connection of whatever kind. Every operation runs the io_context until its own completion, which
// the stream's deadline guarantees to come.
class Connection {
  public:
    virtual ~Connection() = default;
    Connection() = default;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    virtual void expires_after(Duration timeout) = 0;
    virtual error_code write(wire::request<wire::string_body>& request) = 0;
    virtual error_code read(beast::flat_buffer& buffer, wire::response_parser<wire::string_body>& parser) = 0;
    virtual error_code read_header(beast::flat_buffer& buffer,
                                   wire::response_parser<wire::buffer_body>& parser) = 0;
    virtual error_code read_some(beast::flat_buffer& buffer,
                                 wire::response_parser<wire::buffer_body>& parser) = 0;
    virtual bool still_open() = 0;  // false when the server has closed, or sent what nobody asked for
    virtual void shut() = 0;
};

template <typename Stream>
class StreamConnection final : public Connection {
  public:
    template <typename... Args>
    explicit StreamConnection(asio::io_context& io, Args&&... args)
        : io_(io), stream_(std::forward<Args>(args)...) {}

    Stream& stream() { return stream_; }
    void expires_after(Duration timeout) override {
        beast::get_lowest_layer(stream_).expires_after(chrono(timeout));
    }
    error_code write(wire::request<wire::string_body>& request) override {
        return run([&](auto done) { wire::async_write(stream_, request, done); });
    }
    error_code read(beast::flat_buffer& buffer, wire::response_parser<wire::string_body>& parser) override {
        // The header on its own first: an eager parser of Beast forgets the body limit of responses.
        const error_code header =
            run([&](auto done) { wire::async_read_header(stream_, buffer, parser, done); });
        if (header) return header;
        return run([&](auto done) { wire::async_read(stream_, buffer, parser, done); });
    }
    error_code read_header(beast::flat_buffer& buffer,
                           wire::response_parser<wire::buffer_body>& parser) override {
        return run([&](auto done) { wire::async_read_header(stream_, buffer, parser, done); });
    }
    error_code read_some(beast::flat_buffer& buffer,
                         wire::response_parser<wire::buffer_body>& parser) override {
        return run([&](auto done) { wire::async_read_some(stream_, buffer, parser, done); });
    }
    bool still_open() override {
        auto& socket = beast::get_lowest_layer(stream_).socket();
        char byte = 0;
        const auto got = ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        return got < 0 && errno == EAGAIN;
    }
    void shut() override {
        error_code ignored;
        beast::get_lowest_layer(stream_).socket().close(ignored);
    }

    template <typename Start>
    error_code run(Start start) {
        error_code result = asio::error::would_block;
        io_.restart();
        start([&result](error_code error, auto&&...) { result = error; });
        io_.run();
        return result;
    }

  private:
    asio::io_context& io_;
    Stream stream_;
};

}  // namespace

struct Client::Impl {
    explicit Impl(ClientOptions given) : options(std::move(given)) {}

    Status open(Duration timeout);
    Status open_local(Duration timeout);
    Status open_tcp(Duration timeout);
    Status ready(Duration timeout);
    wire::request<wire::string_body> wire_request(const Request& request) const;

    ClientOptions options;
    asio::io_context io;
    std::unique_ptr<asio::ssl::context> tls;
    std::unique_ptr<Connection> connection;
    beast::flat_buffer buffer;
    std::atomic<bool> cancelled{false};
};

namespace {

Error unreachable(const Address& address, const std::string& why) {
    return {ErrorCode::unavailable, fmt::format("{} cannot be reached: {}", address.to_string(), why)};
}

Error broken(const Address& address, error_code error) {
    if (error == beast::error::timeout)
        return {ErrorCode::timed_out, fmt::format("{} did not answer in time", address.to_string())};
    if (error == wire::error::body_limit)
        return {ErrorCode::out_of_space,
                fmt::format("{} answered with a longer body than allowed", address.to_string())};
    return {ErrorCode::io_error,
            fmt::format("the connection to {} broke: {}", address.to_string(), error.message())};
}

// Splits what comes into lines; one line is bounded.
class LineSplitter {
  public:
    LineSplitter(std::size_t limit, const std::function<bool(std::string_view)>& on_line)
        : limit_(limit), on_line_(on_line) {}
    enum class Verdict { more, stop, too_long };
    Verdict feed(std::string_view piece) {
        while (!piece.empty()) {
            const auto end = piece.find('\n');
            pending_.append(piece.substr(0, end));
            if (pending_.size() > limit_) return Verdict::too_long;
            if (end == std::string_view::npos) return Verdict::more;
            piece.remove_prefix(end + 1);
            const std::string line = std::exchange(pending_, {});
            if (!line.empty() && !on_line_(line)) return Verdict::stop;
        }
        return Verdict::more;
    }
    const std::string& rest() const { return pending_; }

  private:
    std::size_t limit_;
    const std::function<bool(std::string_view)>& on_line_;
    std::string pending_;
};

}  // namespace

Status Client::Impl::open_local(Duration timeout) {
    auto made = std::make_unique<StreamConnection<LocalStream>>(io, io);
    made->expires_after(timeout);
    if (options.address.unix_path.size() >= sizeof(sockaddr_un::sun_path))
        return tl::unexpected<Error>(unreachable(options.address, "the path is too long for a unix socket"));
    const asio::local::stream_protocol::endpoint endpoint(options.address.unix_path);
    const error_code error = made->run([&](auto done) { made->stream().async_connect(endpoint, done); });
    if (error) return tl::unexpected<Error>(unreachable(options.address, error.message()));
    connection = std::move(made);
    return {};
}

namespace {

// A server that lost power sends no FIN: a stream that only listens (a watch) would wait for ever. The kernel
// asks after a second of silence and gives up after three.
void notice_silence(int socket) {
    const int on = 1;
    const int one_second = 1;
    const int probes = 2;
    const unsigned unanswered_ms = 3000;
    ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &one_second, sizeof one_second);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &one_second, sizeof one_second);
    ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

Status connect_tcp(const ClientOptions& options, beast::tcp_stream& stream,
                   const std::function<error_code(const asio::ip::tcp::endpoint&)>& connect) {
    error_code error;
    const auto address = asio::ip::make_address(options.address.host, error);
    if (error) return tl::unexpected<Error>(unreachable(options.address, "a literal IP address is expected"));
    if (!options.local_host.empty()) {
        const auto local = asio::ip::make_address(options.local_host, error);
        stream.socket().open(address.is_v6() ? asio::ip::tcp::v6() : asio::ip::tcp::v4(), error);
        if (!error) stream.socket().bind({local, 0}, error);
        if (error)
            return tl::unexpected<Error>(unreachable(
                options.address, "cannot send from " + options.local_host + ": " + error.message()));
    }
    error = connect({address, options.address.port});
    if (error) return tl::unexpected<Error>(unreachable(options.address, error.message()));
    stream.socket().set_option(asio::ip::tcp::no_delay(true), error);
    notice_silence(stream.socket().native_handle());
    return {};
}

}  // namespace

Status Client::Impl::open_tcp(Duration timeout) {
    if (!options.address.tls) {
        auto made = std::make_unique<StreamConnection<beast::tcp_stream>>(io, io);
        made->expires_after(timeout);
        const auto done = connect_tcp(options, made->stream(), [&](const auto& endpoint) {
            return made->run([&](auto handler) { made->stream().async_connect(endpoint, handler); });
        });
        if (done) connection = std::move(made);
        return done;
    }
    if (!options.tls)
        return fail(ErrorCode::invalid_argument,
                    options.address.to_string() + " needs certificates to be reached");
    if (!tls) {
        auto context = make_tls_context(*options.tls, TlsRole::client);
        if (!context) return tl::unexpected<Error>({ErrorCode::unavailable, context.error().message});
        tls = std::make_unique<asio::ssl::context>(context->release());
    }
    auto made = std::make_unique<StreamConnection<TlsStream>>(io, io, *tls);
    made->expires_after(timeout);
    auto done = connect_tcp(options, made->stream().next_layer(), [&](const auto& endpoint) {
        return made->run([&](auto handler) { made->stream().next_layer().async_connect(endpoint, handler); });
    });
    if (!done) return done;
    const error_code error = made->run(
        [&](auto handler) { made->stream().async_handshake(asio::ssl::stream_base::client, handler); });
    if (error) return tl::unexpected<Error>(unreachable(options.address, error.message()));
    const std::string name = peer_common_name(made->stream().native_handle());
    if (!options.expected_name.empty() && name != options.expected_name)
        return tl::unexpected<Error>(unreachable(
            options.address,
            fmt::format("the certificate of '{}' is expected there, not '{}'", options.expected_name, name)));
    connection = std::move(made);
    return {};
}

Status Client::Impl::ready(Duration timeout) {
    if (cancelled) return tl::unexpected<Error>(unreachable(options.address, "cancelled"));
    if (connection && (!connection->still_open() || buffer.size() != 0)) connection.reset();
    if (!connection) {
        buffer.clear();
        auto opened = options.address.unix_path.empty() ? open_tcp(timeout) : open_local(timeout);
        if (!opened) return opened;
    }
    connection->expires_after(timeout);
    return {};
}

wire::request<wire::string_body> Client::Impl::wire_request(const Request& request) const {
    wire::request<wire::string_body> out;
    out.version(11);
    out.method_string(request.method);
    out.target(request.target);
    out.set(wire::field::host, options.address.authority());
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
        out.set(wire::field::content_type, request.content_type);
        out.body() = request.body;
    }
    out.prepare_payload();
    return out;
}

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

Result<Response> Client::call(const Request& request, Duration timeout, Duration connect_timeout) {
    // Connecting and answering share one deadline; the second part gets what the first left.
    const auto start = std::chrono::steady_clock::now();
    if (auto ok = impl_->ready(connect_timeout); !ok) {
        impl_->connection.reset();
        return tl::unexpected<Error>(ok.error());
    }
    const Duration used{std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count()};
    impl_->connection->expires_after(timeout > used ? timeout - used : milliseconds(1));
    auto message = impl_->wire_request(request);
    error_code error = impl_->connection->write(message);
    wire::response_parser<wire::string_body> parser;
    parser.body_limit(impl_->options.body_limit);
    if (!error) error = impl_->connection->read(impl_->buffer, parser);
    if (error) {
        impl_->connection.reset();
        return tl::unexpected<Error>(broken(impl_->options.address, error));
    }
    auto answer = parser.release();
    if (!answer.keep_alive()) impl_->connection.reset();
    const auto type = answer[wire::field::content_type];
    return Response{answer.result_int(), std::move(answer.body()), std::string(type.data(), type.size())};
}

namespace {

Status read_lines(Connection& connection, beast::flat_buffer& buffer,
                  wire::response_parser<wire::buffer_body>& parser, const ClientOptions& options,
                  Duration idle_timeout, const std::function<bool(std::string_view)>& on_line) {
    std::array<char, 16384> piece{};
    const bool good = parser.get().result_int() == 200;
    std::string failure;
    const std::function<bool(std::string_view)> collect = [&](std::string_view line) {
        failure += line;
        return failure.size() < 4096;
    };
    LineSplitter lines(options.body_limit, good ? on_line : collect);
    while (!parser.is_done()) {
        connection.expires_after(idle_timeout);
        auto& body = parser.get().body();
        body.data = piece.data();
        body.size = piece.size();
        error_code error = connection.read_some(buffer, parser);
        if (error == wire::error::need_buffer) error = {};
        if (error && error != wire::error::end_of_stream)
            return tl::unexpected<Error>(broken(options.address, error));
        const auto verdict = lines.feed({piece.data(), piece.size() - body.size});
        if (verdict == LineSplitter::Verdict::too_long)
            return fail(ErrorCode::out_of_space,
                        options.address.to_string() + " sent a longer line than allowed");
        if (verdict == LineSplitter::Verdict::stop || error) break;
    }
    if (good) return {};
    return fail(ErrorCode::failed_precondition,
                fmt::format("{} answered {}: {}{}", options.address.to_string(), parser.get().result_int(),
                            failure, lines.rest()));
}

}  // namespace

Status Client::stream(const Request& request, Duration connect_timeout, Duration idle_timeout,
                      const std::function<bool(std::string_view)>& on_line) {
    if (auto ok = impl_->ready(connect_timeout); !ok) {
        impl_->connection.reset();
        return ok;
    }
    auto message = impl_->wire_request(request);
    error_code error = impl_->connection->write(message);
    wire::response_parser<wire::buffer_body> parser;
    parser.body_limit(boost::none);
    impl_->connection->expires_after(idle_timeout);
    if (!error) error = impl_->connection->read_header(impl_->buffer, parser);
    Status result =
        error ? Status(tl::unexpected<Error>(broken(impl_->options.address, error)))
              : read_lines(*impl_->connection, impl_->buffer, parser, impl_->options, idle_timeout, on_line);
    impl_->connection.reset();
    impl_->buffer.clear();
    return result;
}

void Client::cancel() {
    impl_->cancelled = true;
    asio::post(impl_->io, [impl = impl_.get()] {
        if (impl->connection) impl->connection->shut();
    });
}

void Client::close() {
    impl_->connection.reset();
}
const Address& Client::address() const {
    return impl_->options.address;
}

}  // namespace gemel::http
