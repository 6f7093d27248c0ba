// Error and Result<T>: how an operation that can fail says so. The message is one line for a human: what was
// expected, and what to do next. Codes are for programs (exit codes, HTTP status); they say nothing the
// message does not.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace gemel {

enum class ErrorCode {
    invalid_argument,     // the caller's input is wrong; nothing changed
    not_found,            // the named thing does not exist
    already_exists,       // a thing of that name exists
    failed_precondition,  // right input, wrong moment (state, permission, quorum)
    unavailable,          // the other side cannot be reached now; trying again may help
    timed_out,            // no answer in time; the outcome may be unknown
    permission_denied,    // refused on purpose (lease, epoch, session, credentials)
    corrupt,              // bytes that fail their checksum or format
    unsupported,          // a version or feature outside the agreed range
    out_of_space,         // no room: disk, memory bound, queue bound
    io_error,             // the device or the kernel reported an error
    internal,             // a bug of ours that could be contained
};

std::string_view to_string(ErrorCode code) noexcept;

struct Error {
    ErrorCode code = ErrorCode::internal;
    std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
    return tl::unexpected<Error>(Error{code, std::move(message)});
}

}  // namespace gemel
