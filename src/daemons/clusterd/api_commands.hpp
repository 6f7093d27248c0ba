// Requests of api/openapi.yaml that change something, as commands of the machine. Pure. Unknown fields and
// wrong types are refused by name; what the values may be is checked by the machine (cluster::validate).
#pragma once

#include <string>

#include "adapters/http/message.hpp"
#include "core/cluster/api.hpp"

namespace gemel::clusterd::api {

// `route` is the operation's name: "volume.create", "vm.start", ...; the object's name is
// request.parameters["name"].
Result<cluster::ApiCommand> parse_command(const std::string& route, const http::Request& request);
// ?operation_id=..., or nil where the client gave none.
Result<OperationId> parse_operation_id(const http::Request& request);

}  // namespace gemel::clusterd::api
