// Reading a foreign libvirt domain: could it be a guest here? Pure.
//
// Promises: every element of the domain is either taken over, or replaced by what each guest here gets (a
// note says so), or refused by name with the reason; nothing is dropped silently and an element this program
// does not know is refused. Refused is what would not survive a failover: whatever lives outside the disks on
// one host (firmware variables, TPM state, a kernel file, shared directories, host devices, host-bound
// interfaces, files of CD-ROMs), and what cannot be honoured (another disk bus, hugepages, pinned
// processors). Not here: copying the disks, rendering (domain_template.hpp). Design:
// docs/design/0008-guests.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/formats/records.hpp"
#include "core/guest/domain_template.hpp"

namespace gemel::guest {

inline constexpr std::size_t kMaxDomainXmlBytes = 256U << 10U;

struct Finding {
    std::string element;  // "devices/tpm", "devices/disk[vdb]/source"
    std::string why;      // one line
    bool operator==(const Finding&) const = default;
};

struct ImportedDisk {
    std::string target;
    std::string source;  // path on the host where the domain lived
    std::string format;  // raw, qcow2 ...; empty where the domain does not say
    bool operator==(const ImportedDisk&) const = default;
};

struct ImportedDomain {
    std::string name;
    GuestId uuid;  // nil: the domain has none
    std::uint64_t memory_bytes = 0;
    std::uint32_t vcpus = 0;
    Template fixed;
    std::vector<ImportedDisk> disks;
    std::vector<GuestNic> nics;
    std::vector<Finding> refusals;  // empty: the domain can be a guest here
    std::vector<Finding> notes;     // replaced by what every guest here gets

    bool accepted() const { return refusals.empty(); }
};

// error invalid_argument: not XML, not a domain, or longer than kMaxDomainXmlBytes. A domain that is refused
// is a result, not an error: its refusals list every reason at once.
Result<ImportedDomain> read_domain(std::string_view xml);

// The refusals in one line: "devices/tpm: ...; os/nvram: ...".
std::string refusal_text(const ImportedDomain& domain);

}  // namespace gemel::guest
