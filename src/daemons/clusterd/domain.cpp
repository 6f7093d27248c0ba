#include "daemons/clusterd/domain.hpp"

#include "adapters/libvirt/kvm_probe.hpp"
#include "core/guest/domain_template.hpp"

namespace gemel::clusterd {

Result<DescribedDomain> describe_domain(const Settings& settings, const GuestRecord& guest,
                                        const std::vector<cluster::DomainDisk>& disks) {
    guest::Placement placement;
    placement.type =
        probe_kvm(settings.file.run_dir).works ? guest::DomainType::kvm : guest::DomainType::qemu;
    const auto fixed = guest::decode_template(guest.template_text);
    if (!fixed) return tl::unexpected<Error>(fixed.error());
    placement.protocol = guest::disk_protocol(fixed->memory, placement.type);
    const bool in_place = placement.protocol == guest::DiskProtocol::vhost_user;
    DescribedDomain out;
    for (const auto& disk : disks) {
        out.sockets.push_back(
            settings.front_socket(in_place ? "vhost" : "nbd", disk.volume, disk.epoch, disk.secret));
        placement.disks.push_back({disk.target, out.sockets.back(), disk.size_bytes});
    }
    auto xml = guest::render_domain(guest, placement);
    if (!xml) return tl::unexpected<Error>(xml.error());
    out.xml = std::move(*xml);
    return out;
}

}  // namespace gemel::clusterd
