// Any text as a libvirt domain: never a crash, and a domain that import accepts can be rendered.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/invariant.hpp"
#include "core/guest/domain_import.hpp"
#include "core/guest/domain_template.hpp"

namespace {

using namespace gemel;

void render(const guest::ImportedDomain& domain) {
    GuestRecord record;
    record.name = "web1";
    record.uuid = GuestId::from_random(1, 2);
    record.template_text = guest::encode_template(domain.fixed);
    record.memory_bytes = domain.memory_bytes;
    record.vcpus = domain.vcpus;
    record.nics = domain.nics;
    guest::Placement placement;
    for (const auto& disk : domain.disks) {
        record.disks.push_back({disk.target, "web1-" + disk.target});
        placement.disks.push_back({disk.target, "/run/gemel/nbd/" + disk.target + ".sock"});
    }
    const auto xml = guest::render_domain(record, placement);
    INVARIANT(xml, "what was accepted can be rendered");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto domain = guest::read_domain(text); domain && domain->accepted()) render(*domain);
    if (const auto fixed = guest::decode_template(text)) {
        const auto again = guest::decode_template(guest::encode_template(*fixed));
        INVARIANT(again && *again == *fixed, "a template is read back");
    }
    return 0;
}
