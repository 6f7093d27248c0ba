// The haggling before the transmission: client flags and options. A malformed option is answered, not
// punished; what cannot be answered (wrong magic) closes the connection.
#include <algorithm>

#include "core/nbd/server.hpp"
#include "core/nbd/wire.hpp"

namespace gemel::nbd {
namespace {

constexpr std::uint32_t number(OptionType type) {
    return static_cast<std::uint32_t>(type);
}

}  // namespace

std::span<const std::byte> Server::greeting() {
    reply_size_ = 0;
    put(kGreetingMagic, 8);
    put(kOptionMagic, 8);
    put(kFixedNewstyle | kNoZeroes, 2);
    return std::span(reply_).first(reply_size_);
}

Step Server::client_flags(std::span<const std::byte> bytes) {
    if (bytes.size() < 4) return done(NeedBytes{4});
    const auto flags = load_big(bytes, 0, 4);
    if ((flags & ~std::uint64_t{kFixedNewstyle | kNoZeroes}) != 0 || (flags & kFixedNewstyle) == 0) {
        return close(false, "the client does not speak fixed newstyle");
    }
    no_zeroes_ = (flags & kNoZeroes) != 0;
    phase_ = Phase::options;
    Step step = done(Again{});
    step.consumed = 4;
    return step;
}

Step Server::option(std::span<const std::byte> bytes) {
    if (bytes.size() < kOptionHeaderBytes) return done(NeedBytes{kOptionHeaderBytes});
    if (load_big(bytes, 0, 8) != kOptionMagic) return close(false, "an option without its magic number");
    const auto type = static_cast<std::uint32_t>(load_big(bytes, 8, 4));
    const auto length = static_cast<std::uint32_t>(load_big(bytes, 12, 4));
    if (++options_seen_ > kMaxOptions) return close(false, "the client sent too many options");
    if (length > kMaxOptionBytes) {
        if (type == number(OptionType::export_name)) return close(false, "an export name that is too long");
        option_error(type, OptionReply::too_big, "this option is too long");
        skip_ = length;
        Step step = done(Again{});
        step.consumed = kOptionHeaderBytes;
        return step;
    }
    if (bytes.size() < kOptionHeaderBytes + length) {
        --options_seen_;  // it will be seen again
        return done(NeedBytes{kOptionHeaderBytes + length});
    }
    Step step = handle_option(type, bytes.subspan(kOptionHeaderBytes, length));
    step.consumed = kOptionHeaderBytes + length;
    return step;
}

Step Server::handle_option(std::uint32_t type, std::span<const std::byte> data) {
    switch (type) {
        case number(OptionType::export_name): return export_name(data);
        case number(OptionType::abort):
            option_reply(type, OptionReply::ack);
            return close(true, "the client ended the negotiation");
        case number(OptionType::list): return list(data);
        case number(OptionType::info): return info_or_go(OptionType::info, data);
        case number(OptionType::go): return info_or_go(OptionType::go, data);
        case number(OptionType::structured_reply): return structured_reply(data);
        case number(OptionType::list_meta_context): return meta_context(OptionType::list_meta_context, data);
        case number(OptionType::set_meta_context): return meta_context(OptionType::set_meta_context, data);
        default:
            option_error(type, OptionReply::unsupported, "this server does not know this option");
            return done(Again{});
    }
}

bool Server::is_our_name(std::string_view name) const {
    return name.empty() || name == export_.name;
}

std::uint16_t Server::transmission_flags() const {
    unsigned flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn;
    if (structured_) flags |= kSendDontFragment;
    if (export_.read_only) return static_cast<std::uint16_t>(flags | kReadOnly);
    flags |= kSendTrim | kSendWriteZeroes;
    if (export_.fast_zero) flags |= kSendFastZero;
    return static_cast<std::uint16_t>(flags);
}

Step Server::export_name(std::span<const std::byte> data) {
    // this old option has no way to say no
    if (!is_our_name({reinterpret_cast<const char*>(data.data()), data.size()})) {
        return close(false, "the client asked for an export that is not here");
    }
    put(export_.size_bytes, 8);
    put(transmission_flags(), 2);
    if (!no_zeroes_) {
        for (int i = 0; i < 124; ++i) put(0, 1);
    }
    phase_ = Phase::transmission;
    return done(Transmission{});
}

Step Server::list(std::span<const std::byte> data) {
    constexpr auto kOption = number(OptionType::list);
    if (!data.empty()) {
        option_error(kOption, OptionReply::invalid, "LIST has no data");
        return done(Again{});
    }
    std::array<std::byte, 4 + 255> entry{};
    store_big(entry, 0, 4, export_.name.size());
    std::ranges::copy(as_bytes(export_.name), entry.begin() + 4);
    option_reply(kOption, OptionReply::server, std::span(entry).first(4 + export_.name.size()));
    option_reply(kOption, OptionReply::ack);
    return done(Again{});
}

Step Server::structured_reply(std::span<const std::byte> data) {
    constexpr auto kOption = number(OptionType::structured_reply);
    if (!data.empty()) {
        option_error(kOption, OptionReply::invalid, "STRUCTURED_REPLY has no data");
    } else {
        structured_ = true;
        option_reply(kOption, OptionReply::ack);
    }
    return done(Again{});
}

Step Server::info_or_go(OptionType type, std::span<const std::byte> data) {
    BigReader reader(data);
    const auto name = reader.text();
    const auto wanted = reader.integer(2);
    bool want_name = false;
    bool want_description = false;
    for (std::uint64_t i = 0; i < wanted && reader.ok(); ++i) {
        const auto info = reader.integer(2);
        want_name = want_name || info == kInfoName;
        want_description = want_description || info == kInfoDescription;
    }
    if (!reader.at_end()) {
        option_error(number(type), OptionReply::invalid, "malformed INFO or GO");
        return done(Again{});
    }
    if (!is_our_name(name)) {
        option_error(number(type), OptionReply::unknown, "there is no such export on this socket");
        return done(Again{});
    }
    send_info(number(type), want_name, want_description);
    if (type != OptionType::go) return done(Again{});
    phase_ = Phase::transmission;
    return done(Transmission{});
}

void Server::send_info(std::uint32_t option, bool want_name, bool want_description) {
    std::array<std::byte, 2 + 255> info{};
    store_big(info, 0, 2, kInfoExport);
    store_big(info, 2, 8, export_.size_bytes);
    store_big(info, 10, 2, transmission_flags());
    option_reply(option, OptionReply::info, std::span(info).first(12));

    store_big(info, 0, 2, kInfoBlockSize);
    store_big(info, 2, 4, export_.minimum_block);
    store_big(info, 6, 4, export_.preferred_block);
    store_big(info, 10, 4, kMaxRequestBytes);
    option_reply(option, OptionReply::info, std::span(info).first(14));

    const auto send_text = [&](std::uint16_t kind, std::string_view text) {
        store_big(info, 0, 2, kind);
        std::ranges::copy(as_bytes(text), info.begin() + 2);
        option_reply(option, OptionReply::info, std::span(info).first(2 + text.size()));
    };
    if (want_name) send_text(kInfoName, export_.name);
    if (want_description) send_text(kInfoDescription, export_.description);
    option_reply(option, OptionReply::ack);
}

Step Server::meta_context(OptionType type, std::span<const std::byte> data) {
    const bool set = type == OptionType::set_meta_context;
    if (set) allocation_context_ = false;
    BigReader reader(data);
    const auto name = reader.text();
    const auto queries = reader.integer(4);
    bool matches = !set && queries == 0;  // LIST without a query: everything
    for (std::uint64_t i = 0; i < queries && reader.ok(); ++i) {
        const auto query = reader.text();
        matches = matches || query == kAllocationContext || (!set && query == "base:");
    }
    if (!reader.at_end() || !structured_) {
        option_error(number(type), OptionReply::invalid,
                     structured_ ? "malformed meta context option" : "ask for structured replies first");
        return done(Again{});
    }
    if (!is_our_name(name)) {
        option_error(number(type), OptionReply::unknown, "there is no such export on this socket");
        return done(Again{});
    }
    if (matches) {
        const auto text = as_bytes(kAllocationContext);
        std::array<std::byte, 4 + sizeof(kAllocationContext)> context{};
        store_big(context, 0, 4, set ? kAllocationContextId : 0);
        std::ranges::copy(text, context.begin() + 4);
        option_reply(number(type), OptionReply::meta_context, std::span(context).first(4 + text.size()));
        allocation_context_ = allocation_context_ || set;
    }
    option_reply(number(type), OptionReply::ack);
    return done(Again{});
}

void Server::option_reply(std::uint32_t option, OptionReply type, std::span<const std::byte> data) {
    put(kOptionReplyMagic, 8);
    put(option, 4);
    put(static_cast<std::uint32_t>(type), 4);
    put(data.size(), 4);
    put_bytes(data);
}

void Server::option_error(std::uint32_t option, OptionReply type, std::string_view why) {
    option_reply(option, type, as_bytes(why));
}

}  // namespace gemel::nbd
