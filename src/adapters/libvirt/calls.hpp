// What every caller of libvirt's library needs: its errors as ours, who frees what, its event loop. Internal
// to this folder.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <libvirt/libvirt.h>

#include "base/error.hpp"

namespace gemel::libvirt {

struct DomainFree {
    void operator()(virDomainPtr domain) const { virDomainFree(domain); }
};
using DomainHandle = std::unique_ptr<virDomain, DomainFree>;

// libvirt hands out strings that the caller frees.
inline std::string take(char* text) {
    std::string copy = text == nullptr ? "" : text;
    free(text);
    return copy;
}

// The calling thread's last error: one line, "<doing>: libvirt says: ...".
tl::unexpected<Error> libvirt_error(std::string_view doing);

// A connection that notices a libvirtd which does not answer within three intervals. Error: unavailable.
Result<virConnectPtr> connect_to(const std::string& uri, int keep_alive_interval_s);

// libvirt has one registration for callbacks of many shapes; the event's id says which one this is.
template <typename Callback>
virConnectDomainEventGenericCallback any_shape(Callback* callback) {
    return reinterpret_cast<virConnectDomainEventGenericCallback>(reinterpret_cast<void (*)()>(callback));
}

// One thread for the whole process runs libvirt's event loop (keep-alives, domain events); libvirt has no way
// to end it. Before the first connection.
void start_event_loop();

}  // namespace gemel::libvirt
