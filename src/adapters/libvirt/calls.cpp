#include "adapters/libvirt/calls.hpp"

#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <libvirt/virterror.h>

namespace gemel::libvirt {
namespace {

ErrorCode code_of(int libvirt_code) {
    switch (libvirt_code) {
        case VIR_ERR_NO_DOMAIN: return ErrorCode::not_found;
        case VIR_ERR_DOM_EXIST: return ErrorCode::already_exists;
        case VIR_ERR_OPERATION_INVALID: return ErrorCode::failed_precondition;
        case VIR_ERR_OPERATION_TIMEOUT: return ErrorCode::timed_out;
        case VIR_ERR_XML_ERROR:
        case VIR_ERR_XML_DETAIL:
        case VIR_ERR_XML_INVALID_SCHEMA:
        case VIR_ERR_INVALID_ARG:
        case VIR_ERR_CONFIG_UNSUPPORTED: return ErrorCode::invalid_argument;
        case VIR_ERR_NO_CONNECT:
        case VIR_ERR_INVALID_CONN:
        case VIR_ERR_RPC:
        case VIR_ERR_SYSTEM_ERROR: return ErrorCode::unavailable;
        case VIR_ERR_AUTH_FAILED:
        case VIR_ERR_ACCESS_DENIED: return ErrorCode::permission_denied;
        case VIR_ERR_NO_MEMORY: return ErrorCode::out_of_space;
        default: return ErrorCode::io_error;
    }
}

}  // namespace

tl::unexpected<Error> libvirt_error(std::string_view doing) {
    const virError* error = virGetLastError();
    std::string text = error == nullptr || error->message == nullptr ? "no reason given" : error->message;
    for (char& c : text) {
        if (c == '\n') c = ' ';
    }
    return fail(error == nullptr ? ErrorCode::internal : code_of(error->code),
                fmt::format("{}: libvirt says: {}", doing, text));
}

Result<virConnectPtr> connect_to(const std::string& uri, int keep_alive_interval_s) {
    constexpr unsigned kKeepAliveCount = 3;
    const virConnectPtr connection = virConnectOpen(uri.c_str());
    if (connection == nullptr)
        return fail(ErrorCode::unavailable, libvirt_error("connecting to " + uri).value().message);
    virConnectSetKeepAlive(connection, keep_alive_interval_s, kKeepAliveCount);
    return connection;
}

void start_event_loop() {
    static std::once_flag once;
    std::call_once(once, [] {
        virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});  // errors are returned, not printed
        if (virEventRegisterDefaultImpl() < 0) return;
        std::thread([] {
            while (virEventRunDefaultImpl() == 0) {
            }
        }).detach();
    });
}

}  // namespace gemel::libvirt
