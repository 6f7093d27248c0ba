// gemel-sim: the whole cluster in one thread with virtual time, many times over.
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>

#include "base/mutant.hpp"
#include "sim/control_mutants.hpp"
#include "sim/exhaustive.hpp"
#include "sim/mutants.hpp"
#include "sim/runner.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace {

using namespace gemel;
using namespace gemel::sim;

constexpr std::uint64_t kSeedsThatMustReachEverything = 2000;

struct Arguments {
    RunPlan plan;
    bool mutants = false;
    bool counters = false;
    bool help = false;
    bool as_hunted = false;
    std::string mutant;
    ScenarioPlan scenario;
    bool exhaustive = false;
    std::uint32_t operations = 3;
};

void usage() {
    std::puts(
        "usage: gemel-sim [--seeds N] [--seed S] [--jobs J] [--trace] [--only FAULT] [--keep-going]\n"
        "       gemel-sim --mutants [--mutant NAME]     (built with the mutants preset)\n"
        "       gemel-sim --exhaustive [--operations N]\n"
        "       gemel-sim --scenario NAME|all [--golden FOLDER [--update]]\n"
        "\n"
        "  --seeds N       run N seeds (default 100)\n"
        "  --seed S        the first seed (default 1)\n"
        "  --jobs J        processes (default: processors)\n"
        "  --trace         print every event; one seed in this process\n"
        "  --only FAULT    inject this kind of fault alone\n"
        "  --voters N      2, or 3: with a witness (default: as the seed wants)\n"
        "  --oracle        rules that know everything instead of the real control plane\n"
        "  --keep-going    do not stop after five failures\n"
        "  --counters      print how often everything was reached, however few seeds\n"
        "  --mutants       for each deliberate break, run seeds until a checker finds it\n"
        "  --as-hunted     with --mutant: the unbroken program under the faults that mutant is hunted with\n"
        "  --mutant NAME   only this one; without --mutants: run seeds with it switched on\n"
        "  --exhaustive    two blocks, up to three operations (or N), a crash after every single event\n"
        "  --scenario NAME a scripted scenario (or all): prints its log\n"
        "  --golden FOLDER compares the log with FOLDER/NAME.txt instead; with --update writes it");
}

std::optional<std::uint64_t> number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::optional<Fault> fault_named(std::string_view name) {
    for (std::size_t i = 0; i < kFaultKinds; ++i) {
        if (name_of(static_cast<Fault>(i)) == name) return static_cast<Fault>(i);
    }
    return std::nullopt;
}

// one line of what is wrong, or empty
std::string take_value(Arguments& arguments, std::string_view option, std::string_view value) {
    if (option == "--only") {
        arguments.plan.only = fault_named(value);
        return arguments.plan.only
                   ? ""
                   : "there is no fault '" + std::string(value) + "'; the table of counters names them";
    }
    if (option == "--mutant") {
        arguments.mutant = value;
        return {};
    }
    if (option == "--scenario" || option == "--golden") {
        (option == "--golden" ? arguments.scenario.golden : arguments.scenario.name) = value;
        return {};
    }
    const auto count = number(value);
    if (!count) return std::string(option) + " takes a number, not '" + std::string(value) + "'";
    if (option == "--voters" && (*count == 2 || *count == 3)) {
        arguments.plan.voters = *count == 2 ? Voters::two : Voters::three;
    } else if (option == "--voters") {
        return "--voters takes 2 or 3 (two nodes and a witness)";
    }
    if (option == "--operations" && (*count < 1 || *count > 3)) return "--operations takes 1, 2 or 3";
    if (option == "--operations") arguments.operations = static_cast<std::uint32_t>(*count);
    if (option == "--seeds") arguments.plan.seeds = *count;
    if (option == "--seed") arguments.plan.first_seed = *count;
    if (option == "--jobs")
        arguments.plan.jobs = static_cast<std::uint32_t>(std::max<std::uint64_t>(*count, 1));
    return {};
}

std::string parse(int count, char** values, Arguments& arguments) {
    for (int i = 1; i < count; ++i) {
        const std::string_view option = values[i];
        if (option == "--trace") {
            arguments.plan.trace = true;
        } else if (option == "--mutants") {
            arguments.mutants = true;
        } else if (option == "--exhaustive") {
            arguments.exhaustive = true;
        } else if (option == "--update") {
            arguments.scenario.update = true;
        } else if (option == "--counters") {
            arguments.counters = true;
        } else if (option == "--as-hunted") {
            arguments.as_hunted = true;
        } else if (option == "--oracle") {
            arguments.plan.oracle = true;
        } else if (option == "--keep-going") {
            arguments.plan.stop_after_failures = ~std::uint64_t{0};
        } else if (option == "--help" || option == "-h") {
            arguments.help = true;
        } else if (option == "--seeds" || option == "--seed" || option == "--jobs" || option == "--only" ||
                   option == "--mutant" || option == "--voters" || option == "--scenario" ||
                   option == "--golden" || option == "--operations") {
            if (i + 1 >= count) return std::string(option) + " needs a value";
            const std::string wrong = take_value(arguments, option, values[++i]);
            if (!wrong.empty()) return wrong;
        } else {
            return "there is no option '" + std::string(option) + "'; --help lists them";
        }
    }
    return {};
}

int trace_one(const Arguments& arguments) {
#ifdef GEMEL_MUTANTS
    select_mutant(arguments.as_hunted ? "" : arguments.mutant);
#endif
    Counters counters;
    SeedOptions options = arguments.plan.options_for(arguments.plan.first_seed);
    options.print_trace = true;
    const SeedResult result = run_one_seed(options, counters);
    if (arguments.counters) std::fputs(counters.table().c_str(), stdout);
    std::printf(
        "%s, seed %llu, %llu requests, %llu faults, %llu events, %.1f virtual seconds, trace %016llx\n",
        result.ok ? "sim ok" : ("sim FAILED: " + result.what).c_str(),
        static_cast<unsigned long long>(options.seed), static_cast<unsigned long long>(result.requests),
        static_cast<unsigned long long>(result.faults), static_cast<unsigned long long>(result.events),
        result.virtual_seconds, static_cast<unsigned long long>(result.hash));
    return result.ok ? 0 : 1;
}

int run_many(const Arguments& arguments) {
    RunPlan plan = arguments.plan;
    if (!arguments.as_hunted) plan.mutant = arguments.mutant;
    RunSummary summary = run_seeds(plan);
    const bool complete =
        summary.failures.empty() && plan.seeds >= kSeedsThatMustReachEverything && !plan.only;
    std::vector<std::string> missed;
    if (complete) {
        require_counters(summary.counters);
        missed = summary.counters.missed();
    }
    if (complete || arguments.counters) std::fputs(summary.counters.table().c_str(), stdout);
    for (const std::string& name : missed) std::printf("never reached: %s\n", name.c_str());
    const auto per_seed = [&](double value) {
        return summary.seeds == 0 ? 0 : value / static_cast<double>(summary.seeds);
    };
    const bool ok = summary.failures.empty() && missed.empty();
    std::printf(
        "%s seeds=%llu failed=%zu unreached=%zu requests_per_seed=%.0f faults_per_seed=%.1f "
        "cpu_ms_per_seed=%.1f wall_seconds=%.1f\n",
        ok ? "sim ok:" : "sim FAILED:", static_cast<unsigned long long>(summary.seeds),
        summary.failures.size(), missed.size(),
        per_seed(static_cast<double>(summary.counters.count("total.requests"))),
        per_seed(static_cast<double>(summary.counters.count("total.faults"))),
        per_seed(summary.cpu_seconds * 1000), summary.wall_seconds);
    return ok ? 0 : 1;
}

int run_every_schedule(const Arguments& arguments) {
    ExhaustivePlan plan;
    plan.operations = arguments.operations;
    plan.jobs = arguments.plan.jobs;
    plan.mutant = arguments.mutant;
    plan.stop_at_first = !arguments.mutant.empty();
    const ExhaustiveSummary summary = run_exhaustive(plan);
    std::printf("%s sequences=%llu schedules=%llu failed=%llu\n",
                summary.failed == 0 ? "exhaustive ok:" : "exhaustive FAILED:",
                static_cast<unsigned long long>(summary.programs),
                static_cast<unsigned long long>(summary.schedules),
                static_cast<unsigned long long>(summary.failed));
    return summary.failed == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** values) {
    Arguments arguments;
    const long processors = ::sysconf(_SC_NPROCESSORS_ONLN);
    arguments.plan.jobs = processors > 0 ? static_cast<std::uint32_t>(processors) : 1;
    const std::string wrong = parse(count, values, arguments);
    if (!wrong.empty()) {
        std::fprintf(stderr, "gemel-sim: %s\n", wrong.c_str());
        return 2;
    }
    if (arguments.help) {
        usage();
        return 0;
    }
#ifndef GEMEL_MUTANTS
    if (arguments.mutants || !arguments.mutant.empty()) {
        std::fprintf(stderr,
                     "gemel-sim: this binary has no mutants; ./dev sim --mutants builds the one that has\n");
        return 2;
    }
#endif
    if (!arguments.scenario.name.empty()) {
#ifdef GEMEL_MUTANTS
        select_mutant(arguments.mutant);
#endif
        return run_scenarios(arguments.scenario) ? 0 : 1;
    }
    if (arguments.exhaustive) return run_every_schedule(arguments);
    if (arguments.mutants) {
        const bool all = hunt_mutants(arguments.plan.jobs, arguments.mutant);
        std::puts(all ? "mutants ok: every one was found" : "mutants FAILED: see NOT FOUND above");
        return all ? 0 : 1;
    }
    if (!arguments.mutant.empty()) {
        const HuntProfile profile = hunt_profile(arguments.mutant);
        if (!arguments.plan.voters) arguments.plan.voters = profile.voters;
        arguments.plan.kinds = profile.faults;
    }
    if (arguments.plan.trace) return trace_one(arguments);
    return run_many(arguments);
}
