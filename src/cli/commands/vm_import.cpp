// gemel vm import: a disk image or a libvirt domain becomes a guest. Steps: look at everything first; for
// each disk make a volume, export it, copy, close; define the guest. Whatever fails or interrupts it, what
// was made is deleted again; only a SIGKILL leaves a volume behind, which the next import names.
#include <cstdint>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/commands/vm_parts.hpp"
#include "cli/fields.hpp"
#include "cli/image.hpp"

namespace gemel::cli {

namespace {

constexpr std::int64_t kVolumeGrainBytes = 4096;
constexpr std::int64_t kSmallestVolumeBytes = 1 << 20;
constexpr std::size_t kXmlLimitBytes = 256 << 10;

struct ImportOptions {
    std::string name;
    std::string source;
    std::string format;
    VmShape shape;
    bool start = false;
};

struct Disk {
    Image image;
    std::string volume;
    std::string target;  // empty: the next free one
};

std::int64_t volume_bytes(const Image& image) {
    const std::int64_t rounded =
        (image.virtual_bytes + kVolumeGrainBytes - 1) / kVolumeGrainBytes * kVolumeGrainBytes;
    return std::max(rounded, kSmallestVolumeBytes);
}

// "<domain", "<?xml" or "<!--" after blanks; disk images may begin with "<" too (VDI does)
bool looks_like_xml(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string head(256, '\0');
    file.read(head.data(), static_cast<std::streamsize>(head.size()));
    const std::size_t begin = head.find_first_not_of(" \t\r\n");
    if (begin == std::string::npos) return false;
    for (const char* start : {"<domain", "<?xml", "<!--"}) {
        if (head.compare(begin, std::string(start).size(), start) == 0) return true;
    }
    return false;
}

// Is it a domain this cluster can keep alive? Fills the body and the disks from what the server read in it.
Status read_domain(Context& context, const ImportOptions& options, Json& body, std::vector<Disk>& disks) {
    std::ifstream file(options.source, std::ios::binary);
    const std::string xml((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (xml.size() > kXmlLimitBytes) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has {} bytes: a libvirt domain of at most 256 KiB is expected",
                                options.source, xml.size()));
    }
    if (!is_utf8(xml)) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("{} is not in UTF-8: a libvirt domain as 'virsh dumpxml' writes it is expected",
                        options.source));
    }
    auto api = context.open();
    if (!api) return tl::unexpected<Error>(api.error());
    auto check = (*api)->call({"POST", "/v1/vms/check-xml", Json{{"domain_xml", xml}}, {}});
    if (!check) return tl::unexpected<Error>(check.error());
    if (!flag_of(*check, "accepted")) {
        std::string why;
        for (const Json& refusal : list_of(*check, "refusals")) {
            why += fmt::format("{}<{}>: {}", why.empty() ? "" : "; ", text_of(refusal, "element"),
                               text_of(refusal, "why"));
        }
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} would not survive a failover: {}; remove or change that and import again",
                                options.source, why.empty() ? "refused" : why));
    }
    if (options.shape.memory.empty()) body["memory_bytes"] = number_of(*check, "memory_bytes", 1LL << 30);
    if (options.shape.cpus == 0) body["vcpus"] = number_of(*check, "vcpus", 1);
    body["domain_xml"] = xml;
    for (const Json& disk : list_of(*check, "disks")) {
        auto image = inspect_image(text_of(disk, "source"), text_of(disk, "format"));
        if (!image) return tl::unexpected<Error>(image.error());
        disks.push_back({*image, disk_name(options.name, disks.size()), text_of(disk, "target")});
    }
    if (disks.empty()) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has no disk: at least one <disk type='file'> or "
                                "<disk type='block'> is expected",
                                options.source));
    }
    return {};
}

Status copy_disk(Context& context, const Disk& disk) {
    auto made = context.change("POST", fmt::format("/v1/volumes/{}/export", disk.volume), Json::object(),
                               "opening volume " + disk.volume);
    if (!made) return tl::unexpected<Error>(made.error());
    Status copied;
    {
        Progress progress(context.terminal);
        const std::string step = "copying " + disk.image.path;
        double percent = 0;
        const auto show = [&] {
            progress.show(step, fmt::format("{:.0f} % of {}", percent, human_size(disk.image.virtual_bytes)));
        };
        copied = copy_image(
            disk.image, text_of(*made, "uri"), [&](double now) { percent = now; },
            [&] {
                show();
                return !interrupted();
            });
    }
    auto closed = context.finish("DELETE", fmt::format("/v1/volumes/{}/export", disk.volume), nullptr,
                                 "flushing volume " + disk.volume);
    if (!copied) return copied;
    if (!closed) return tl::unexpected<Error>(closed.error());
    return {};
}

Status import_guest(Context& context, const ImportOptions& options) {
    if (auto good = check_name("guest", options.name); !good) return good;
    auto body = guest_body(options.name, options.shape);
    if (!body) return tl::unexpected<Error>(body.error());
    std::vector<Disk> disks;
    const bool xml = options.format.empty() && looks_like_xml(options.source);
    if (!xml) {
        auto image = inspect_image(options.source, options.format);
        if (!image) return tl::unexpected<Error>(image.error());
        disks.push_back({*image, options.name, ""});
    }
    if (auto free = check_guest_is_new(context, options.name); !free) return free;
    if (xml) {
        if (auto read = read_domain(context, options, *body, disks); !read) return read;
    }
    NewVolumes made(context);
    for (const Disk& disk : disks) {
        if (auto done = made.create(disk.volume, volume_bytes(disk.image)); !done)
            return made.undone(done.error());
        if (auto done = copy_disk(context, disk); !done) return made.undone(done.error());
        Json entry = {{"volume", disk.volume}};
        if (!disk.target.empty()) entry["target"] = disk.target;
        (*body)["disks"].push_back(std::move(entry));
    }
    if (interrupted())
        return made.undone({ErrorCode::failed_precondition, "interrupted; nothing is left of the import"});
    auto guest = context.change("POST", "/v1/vms", std::move(*body), "defining guest " + options.name);
    if (!guest) return made.undone(guest.error());
    made.keep();
    context.terminal.print(fmt::format("guest {} is imported ({} disk{})\n", options.name, disks.size(),
                                       disks.size() == 1 ? "" : "s"));
    return options.start ? start_guest(context, options.name, "") : Status{};
}

}  // namespace

void add_vm_import_command(CommandTree& tree, CLI::App* vm) {
    auto options = std::make_shared<ImportOptions>();
    CLI::App* imported =
        tree.add(vm, "import", "make a guest from a qcow2 or raw image or a libvirt domain",
                 {"SOURCE is a disk image, which becomes the guest's only disk, or a libvirt domain XML "
                  "('virsh dumpxml'), whose "
                  "disks are copied and whose other devices are taken over. Elements that would not survive "
                  "a failover (nvram, "
                  "tpm, kernel, host devices, paths on the host) are named and refused. Each disk is copied "
                  "into a new mirrored "
                  "volume; the source is only read. If a step fails or is interrupted, nothing is left. "
                  "Shut the guest down before importing it.",
                  {{"gemel vm import web1 debian-12.qcow2 --memory 2G --cpus 2 --bridge br0", "an image"},
                   {"gemel vm import db1 db1.xml --start", "a libvirt domain, started at once"},
                   {"gemel vm import old1 disk.img --format raw", "an image that must not be probed"}}});
    imported->add_option("NAME", options->name, "the new guest's name")->required();
    imported->add_option("SOURCE", options->source, "image or domain XML on this node")->required();
    imported->add_option("--format", options->format, "raw or qcow2 (default: look)");
    add_shape_options(imported, options->shape);
    imported->add_flag("--start", options->start, "start it when it is imported");
    tree.on(imported, [&tree, options] { return import_guest(tree.context, *options); });
}

}  // namespace gemel::cli
