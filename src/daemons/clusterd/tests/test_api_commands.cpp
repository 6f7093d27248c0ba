// Bad input to the API, table-driven: one line that names what was expected, and nothing else happens.
#include <gtest/gtest.h>

#include "daemons/clusterd/api_commands.hpp"
#include "daemons/clusterd/api_json.hpp"

namespace gemel::clusterd::api {
namespace {

http::Request request(const std::string& name, const std::string& body) {
    http::Request out;
    out.method = "POST";
    out.body = body;
    if (!name.empty()) out.parameters["name"] = name;
    return out;
}

struct Bad {
    const char* route;
    const char* name;
    const char* body;
    const char* says;
};

class BadInput : public ::testing::TestWithParam<Bad> {};

TEST_P(BadInput, IsNamedInOneLine) {
    const auto& bad = GetParam();
    const auto command = parse_command(bad.route, request(bad.name, bad.body));
    ASSERT_FALSE(command) << bad.body;
    EXPECT_NE(command.error().message.find(bad.says), std::string::npos) << command.error().message;
    EXPECT_EQ(command.error().message.find('\n'), std::string::npos);
    EXPECT_EQ(command.error().code, ErrorCode::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(
    Api, BadInput,
    ::testing::Values(
        Bad{"volume.create", "", "{", "not JSON"}, Bad{"volume.create", "", "[]", "object is expected"},
        Bad{"volume.create", "", "{}", "'name' is missing"},
        Bad{"volume.create", "", R"({"name":"a"})", "'size_bytes' is missing"},
        Bad{"volume.create", "", R"({"name":"a","size_bytes":-4096})", "'size_bytes'"},
        Bad{"volume.create", "", R"({"name":"a","size_bytes":"1G"})", "'size_bytes'"},
        Bad{"volume.create", "", R"({"name":"a","size_bytes":1048576,"colour":1})", "'colour' is not known"},
        Bad{"volume.create", "", R"({"name":"a","size_bytes":1048576,"ack_mode":"fast"})", "'ack_mode'"},
        Bad{"vm.create", "", R"({"name":"a","disks":[{"volume":"v"}]})", "memory_bytes"},
        Bad{"vm.create", "", R"({"name":"a","memory_bytes":1,"vcpus":1,"disks":[{"size":1}]})", "disks[0]"},
        Bad{"vm.create", "", R"({"name":"a","vcpus":1000,"disks":[]})", "'vcpus'"},
        Bad{"vm.stop", "a", R"({"mode":"hard"})", "'mode'"},
        Bad{"fence.set", "a", R"({"node":"node1","agent":"fence_ipmilan"})", "'options' is missing"},
        Bad{"fence.set", "a", R"({"node":"node1","agent":"fence_ipmilan","options":{"ip":1}})", "options.ip"},
        Bad{"node.confirm-down", "node2", "{}", "'confirm_name' is missing"},
        Bad{"vm.migrate", "web1", R"({"node":"Node2"})", "node"},
        Bad{"vm.migrate", "web1", R"({"node":2})", "'node' must be a text"},
        Bad{"vm.migrate", "web1", R"({"bandwidth_bytes":4096})", "bandwidth_bytes"},
        Bad{"vm.migrate", "web1", R"({"bandwidth_bytes":1099511627777})", "bandwidth_bytes"},
        Bad{"vm.migrate", "web1", R"({"downtime_ms":0})", "downtime_ms"},
        Bad{"vm.migrate", "web1", R"({"downtime_ms":60001})", "downtime_ms"},
        Bad{"vm.migrate", "web1", R"({"downtime_ms":4294967297})", "downtime_ms"},
        Bad{"vm.migrate", "web1", R"({"auto_converge":1})", "'auto_converge' must be true or false"},
        Bad{"vm.migrate", "web1", R"({"live":true})", "'live' is not known"},
        Bad{"vm.migrate-cancel", "web1", R"({"node":"node2"})", "'node' is not known"},
        Bad{"vm.migrate-cancel", "WEB1", "{}", "name"},
        Bad{"node.drain", "node1", R"({"confirm_name":"node1"})", "'confirm_name' is not known"},
        Bad{"node.drain", "../etc", "{}", "node"}, Bad{"node.undrain", "", "{}", "node"}));

TEST(ApiCommands, WhatTheCommandLineSendsIsUnderstood) {
    const auto volume =
        parse_command("volume.create", request("", R"({"name":"web1","size_bytes":1073741824})"));
    ASSERT_TRUE(volume) << volume.error().message;
    EXPECT_EQ(std::get<cluster::VolumeCreate>(*volume).size_bytes, 1U << 30);
    const auto guest = parse_command(
        "vm.create",
        request("",
                R"({"name":"web1","memory_bytes":536870912,"vcpus":2,"disks":[{"volume":"b","target":"vda"},)"
                R"({"volume":"a"}],"nics":[{"bridge":"br0"}]})"));
    ASSERT_TRUE(guest) << guest.error().message;
    const auto& create = std::get<cluster::GuestCreate>(*guest);
    ASSERT_EQ(create.disks.size(), 2U);
    EXPECT_EQ(create.disks[1].target, "vdb");
    EXPECT_FALSE(create.template_text.empty());
    const auto stop = parse_command("vm.stop", request("web1", ""));
    ASSERT_TRUE(stop) << stop.error().message;
    EXPECT_EQ(std::get<cluster::GuestStop>(*stop).timeout_ms, 120000U);
    http::Request with_id = request("web1", "");
    with_id.query["operation_id"] = "no";
    EXPECT_FALSE(parse_operation_id(with_id));
}

TEST(ApiCommands, MovingIsUnderstood) {
    const auto plain = parse_command("vm.migrate", request("web1", "{}"));
    ASSERT_TRUE(plain) << plain.error().message;
    const auto& simple = std::get<cluster::GuestMigrate>(*plain);
    EXPECT_EQ(simple.name, "web1");
    EXPECT_EQ(simple.node, "");
    EXPECT_EQ(simple.bandwidth_bytes, 0U);
    EXPECT_EQ(simple.downtime_ms, 300U);
    EXPECT_TRUE(simple.auto_converge);
    const auto full = parse_command(
        "vm.migrate",
        request("web1",
                R"({"node":"node2","bandwidth_bytes":104857600,"downtime_ms":50,"auto_converge":false})"));
    ASSERT_TRUE(full) << full.error().message;
    const auto& migrate = std::get<cluster::GuestMigrate>(*full);
    EXPECT_EQ(migrate.node, "node2");
    EXPECT_EQ(migrate.bandwidth_bytes, 100U << 20);
    EXPECT_EQ(migrate.downtime_ms, 50U);
    EXPECT_FALSE(migrate.auto_converge);
    const auto cancel = parse_command("vm.migrate-cancel", request("web1", "{}"));
    ASSERT_TRUE(cancel) << cancel.error().message;
    EXPECT_EQ(std::get<cluster::GuestMigrateCancel>(*cancel).name, "web1");
    const auto drain = parse_command("node.drain", request("node1", "{}"));
    ASSERT_TRUE(drain) << drain.error().message;
    EXPECT_EQ(std::get<cluster::NodeDrain>(*drain).node, "node1");
    const auto undrain = parse_command("node.undrain", request("node1", "{}"));
    ASSERT_TRUE(undrain) << undrain.error().message;
    EXPECT_EQ(std::get<cluster::NodeUndrain>(*undrain).node, "node1");
}

TEST(ApiJson, TimesAreRfc3339) {
    EXPECT_EQ(time_text(1700000000123), "2023-11-14T22:13:20.123Z");
}

struct ApiJsonOf : ::testing::Test {
    const Settings settings;
    const Renderer renderer{settings, [](const std::string&, const std::string&) { return -1; },
                            [](const std::string&) { return 0; }};
};

TEST_F(ApiJsonOf, AGuestThatMovesSaysWhereTo) {
    cluster::GuestView view;
    view.name = "web1";
    EXPECT_TRUE(renderer.guest(view)["migration"].is_null());
    MigrationRecord migration;
    migration.node = "node2";
    migration.phase = MigrationPhase::prepared;
    migration.cancel = true;
    migration.gate = "192.0.2.2:7799";
    migration.secret = "0123456789abcdef0123456789abcdef";
    view.migration = migration;
    const Json expected{{"node", "node2"}, {"phase", "prepared"}, {"cancel", true}};
    EXPECT_EQ(renderer.guest(view)["migration"], expected);
}

TEST_F(ApiJsonOf, AFinishedMigrationTellsItsPause) {
    cluster::StatusView status;
    status.guests.emplace_back();
    status.guests[0].name = "web1";
    status.guests[0].node = "node2";
    OperationRecord record;
    record.kind = "vm.migrate";
    record.object = "vm/web1";
    record.state = OperationState::running;
    record.step = "copying memory to node2: 45 % of 1228 MiB, 118 MiB/s";
    EXPECT_EQ(renderer.operation(record, status, {})["step"], record.step);
    EXPECT_TRUE(renderer.operation(record, status, {})["result"].is_null());
    record.state = OperationState::succeeded;
    const auto unknown = renderer.operation(record, status, {})["result"];
    EXPECT_EQ(unknown["node"], "node2");
    EXPECT_TRUE(unknown["downtime_ms"].is_null());
    record.result["downtime_ms"] = "84";
    EXPECT_EQ(renderer.operation(record, status, {})["result"]["downtime_ms"], 84);
    record.kind = "vm.start";
    EXPECT_FALSE(renderer.operation(record, status, {})["result"].contains("downtime_ms"));
}

TEST_F(ApiJsonOf, ADrainedNodeSaysSo) {
    cluster::NodeView view;
    EXPECT_EQ(renderer.node(view)["drained"], false);
    view.drained = true;
    EXPECT_EQ(renderer.node(view)["drained"], true);
}

TEST_F(ApiJsonOf, SecretsAreNeverGivenOut) {
    cluster::FenceDeviceView view;
    view.device.name = "bmc1";
    view.device.secrets["password"] = "s3cret";
    view.state = "ok";
    const auto text = renderer.fence_device(view).dump();
    EXPECT_EQ(text.find("s3cret"), std::string::npos);
    EXPECT_NE(text.find("\"secrets_set\":[\"password\"]"), std::string::npos);
    EXPECT_NE(text.find("\"power\":null"), std::string::npos);
}

}  // namespace
}  // namespace gemel::clusterd::api
