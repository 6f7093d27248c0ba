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
        Bad{"node.confirm-down", "node2", "{}", "'confirm_name' is missing"}));

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

TEST(ApiJson, TimesAreRfc3339) {
    EXPECT_EQ(time_text(1700000000123), "2023-11-14T22:13:20.123Z");
}

TEST(ApiJson, SecretsAreNeverGivenOut) {
    const Settings settings;
    const Renderer renderer(
        settings, [](const std::string&, const std::string&) { return -1; },
        [](const std::string&) { return 0; });
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
