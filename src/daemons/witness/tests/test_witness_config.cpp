#include <gtest/gtest.h>

#include "daemons/witness/witness_config.hpp"

namespace gemel::witness {
namespace {

const std::string kText =
    "name: witness\ndata-dir: /var/lib/gemel/store\nlisten-peer-urls: https://10.0.0.3:2380\n"
    "initial-advertise-peer-urls: https://10.0.0.3:2380\nadvertise-client-urls: https://10.0.0.3:2379\n"
    "initial-cluster: node1=https://10.0.0.1:2380,witness=https://10.0.0.3:2380,node2=https://10.0.0.2:2380\n"
    "initial-cluster-state: new\n"
    "client-transport-security:\n  cert-file: /c\n  key-file: /k\n  trusted-ca-file: /a\n"
    "peer-transport-security:\n  cert-file: /x\n  key-file: /y\n  trusted-ca-file: /z\n";

TEST(WitnessConfig, KnowsWhoElseIsThere) {
    const auto config = parse_witness_config(kText);
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->data_directory, "/var/lib/gemel/store");
    EXPECT_EQ(config->tls.ca, "/a");
    ASSERT_EQ(config->others().size(), 2U);
    EXPECT_EQ(config->others()[1].to_string(), "https://10.0.0.2:2379");
}

TEST(WitnessConfig, JoinsUnderItsOwnNameWhatIsThereNow) {
    const auto config = parse_witness_config(kText);
    ASSERT_TRUE(config);
    const auto text = config->joining(
        {{1, "node1", {"https://10.0.0.1:2380"}, {}, false}, {2, "", {"https://10.0.0.3:2380"}, {}, true}});
    EXPECT_NE(text.find("initial-cluster: node1=https://10.0.0.1:2380,witness=https://10.0.0.3:2380\n"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("initial-cluster-state: existing\n"), std::string::npos);
    EXPECT_EQ(text.find("state: new"), std::string::npos);
}

TEST(WitnessConfig, WhatIsMissingIsNamed) {
    for (const char* key : {"name:", "data-dir:", "initial-cluster:", "trusted-ca-file:"}) {
        std::string text = kText;
        const auto found = text.find(key);
        const auto at = found == 0 ? 0 : text.rfind('\n', found) + 1;
        text.erase(at, text.find('\n', at) - at + 1);
        const auto bad = parse_witness_config(text);
        ASSERT_FALSE(bad) << key;
        EXPECT_NE(bad.error().message.find(std::string(key).substr(0, 4)), std::string::npos)
            << bad.error().message;
    }
}

}  // namespace
}  // namespace gemel::witness
