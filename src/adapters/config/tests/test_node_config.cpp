#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "adapters/config/host_incarnation.hpp"
#include "adapters/config/node_config.hpp"

namespace gemel {
namespace {

const std::string kGood = R"([cluster]
id = "11111111-1111-4111-8111-111111111111"
name = "demo"
[node]
name = "node1"
id = "22222222-2222-4222-8222-222222222222"
[store]
client_url = "https://10.77.0.1:2379"
peer_url = "https://10.77.0.1:2380"
members = [ { name = "node1", peer_url = "https://10.77.0.1:2380", client_url = "https://10.77.0.1:2379" } ]
[control]
address = "10.77.0.1:7700"
[[link]]
name = "link1"
address = "10.77.1.1:7710"
[[peer]]
name = "node2"
id = "33333333-3333-4333-8333-333333333333"
control = "10.77.0.2:7700"
links = { link1 = "10.77.1.2:7710" }
[timing]
lease_ms = 10000
fence_bound_ms = 9000
)";

std::string replaced(const std::string& what, const std::string& with) {
    std::string text = kGood;
    const auto at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return text.replace(at, what.size(), with);
}

TEST(NodeConfig, ReadsEverything) {
    const auto config = parse_node_config(kGood, "node.toml");
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->name, "node1");
    EXPECT_EQ(config->members.size(), 1U);
    EXPECT_EQ(config->links.at(0).address, "10.77.1.1:7710");
    ASSERT_NE(config->peer("node2"), nullptr);
    EXPECT_EQ(config->peer("node2")->links.at("link1"), "10.77.1.2:7710");
    EXPECT_EQ(config->timing.regrant(), milliseconds(10'100 + 15'000 + 5'000));
    EXPECT_EQ(config->timing.fence_bound, seconds(9));
    EXPECT_EQ(config->pki("ca.crt"), "/etc/gemel/pki/ca.crt");
}

struct BadCase {
    const char* what;
    const char* with;
    const char* expected;
};

TEST(NodeConfig, EachMistakeIsNamed) {
    const BadCase cases[] = {
        {"name = \"demo\"", "nam = \"demo\"", "unknown key 'nam'"},
        {"name = \"node1\"\nid", "name = \"Node_1\"\nid", "is no name"},
        {"id = \"11111111-1111", "id = \"1", "is not an id"},
        {"10.77.0.1:7700", "10.77.0.1", "HOST:PORT"},
        {"10.77.0.1:7700", "10.77.0.1:99999", "HOST:PORT"},
        {"links = { link1", "links = { link9", "link 'link9'"},
        {"name = \"node2\"", "name = \"node1\"", "not its own peer"},
        {"lease_ms = 10000", "lease_ms = 1000", "time chain is broken"},
        {"lease_ms = 10000", "lease_ms = \"long\"", "milliseconds"},
        {"[control]", "[contro]", "unknown key 'contro'"},
        {"[cluster]", "[cluster", "not valid TOML"},
    };
    for (const BadCase& bad : cases) {
        const auto config = parse_node_config(replaced(bad.what, bad.with), "node.toml");
        ASSERT_FALSE(config) << bad.with;
        EXPECT_NE(config.error().message.find(bad.expected), std::string::npos) << config.error().message;
        EXPECT_EQ(config.error().message.rfind("node.toml", 0), 0U) << config.error().message;
    }
}

TEST(NodeConfig, AMissingFileSaysWhere) {
    const auto config = load_node_config("/nonexistent/node.toml");
    ASSERT_FALSE(config);
    EXPECT_NE(config.error().message.find("/nonexistent/node.toml"), std::string::npos);
}

TEST(HostIncarnation, IsTheSameForAllAndNewOnAFreshRunDirectory) {
    const auto base =
        std::filesystem::temp_directory_path() / ("gemel-incarnation-" + random_uuid().to_string());
    std::filesystem::create_directory(base);
    const std::string first = (base / "a").string();
    Incarnation seen[4];
    std::vector<std::thread> threads;
    for (auto& one : seen) {
        threads.emplace_back([&one, &first] {
            const auto incarnation = host_incarnation(first);
            if (incarnation) one = *incarnation;
        });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& one : seen) EXPECT_EQ(one, seen[0]);
    EXPECT_FALSE(seen[0].is_nil());
    const auto other = host_incarnation((base / "b").string());
    ASSERT_TRUE(other);
    EXPECT_EQ(other->boot, seen[0].boot);
    EXPECT_NE(other->nonce, seen[0].nonce);
    std::filesystem::remove_all(base);
}

}  // namespace
}  // namespace gemel
