#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# Installs, builds and passes all tests. The last line is "N passed, N failed"; the exit code is 0 only if nothing failed.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
REPO=$PWD
REPORTS=$REPO/build/reports
# Debian's, whatever else is called python3 here: its modules come from Debian packages.
PYTHON=/usr/bin/python3
# What of the integration tests is worth its time under the thread sanitizer.
TSAN_TESTS=(chat sending routing faults)
# Those of the supervisor, a shell script: the address sanitizer has nothing to see there that others do not show it.
SHELL_TESTS=(run_sh run_tls rolling)

QUICK=no
ONLY=
NAMES=() DURATIONS=() RESULTS=() PASSED=0 FAILED=0

usage() {
    cat <<'END'
usage: tests/run.sh [--quick] [--only NAME] [--list]
  --quick       the release build, its unit and integration tests
  --only NAME   only the steps whose name begins with NAME (and the builds they need)
  --list        print the names of the steps
END
}

STEPS=(
    deps
    release-build release-unit
    lint-rebuild lint-format lint-source lint-shell lint-symbols
    release-integration
    release-crash
    asan-build asan-unit asan-integration
    tsan-build tsan-unit tsan-integration
    lint-tidy
)
QUICK_STEPS=(deps release-build release-unit release-integration)

parse_options() {
    while (($#)); do
        case $1 in
            --quick) QUICK=yes ;;
            --only)
                ONLY=${2:-}
                [[ -n $ONLY ]] || {
                    printf 'tests: --only needs a name\n' >&2
                    exit 2
                }
                shift
                ;;
            --list)
                printf '%s\n' "${STEPS[@]}"
                exit 0
                ;;
            --help | -h)
                usage
                exit 0
                ;;
            *)
                printf 'tests: unknown option %q\n' "$1" >&2
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
}

# build PRESET
build() {
    cmake --preset "$1" -DBUILD_TESTING=ON && cmake --build --preset "$1"
}

# environment PRESET: what the sanitizers need to know, exported.
environment() {
    export CHASQUI_BIN=$REPO/build/$1/bin PYTHONDONTWRITEBYTECODE=1
    unset ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS TSAN_OPTIONS
    case $1 in
        release) export CHASQUI_WAIT=30 ;;
        asan)
            export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 CHASQUI_WAIT=30
            ;;
        # Reads of what libzmq wrote are found and suppressed; with suppress_equal_addresses each is looked for in the
        # list of all before it, and an actor is busy with that for so long that it loses its lease.
        tsan)
            export TSAN_OPTIONS="suppressions=$REPO/cmake/tsan.supp:halt_on_error=1:suppress_equal_addresses=0"
            export CHASQUI_WAIT=60
            ;;
    esac
}

# unit PRESET: everything of ctest but the integration tests: cmocka tests and the replay of the fuzzers' corpus.
unit() {
    ctest --test-dir "build/$1" --label-exclude integration --output-on-failure --no-tests=error -j "$(nproc)" \
        --output-junit "$REPORTS/$1-unit.xml"
}

# integration PRESET [NAME...]: those of real services and those of raw bytes, or the files named of the former.
integration() {
    local preset=$1
    shift
    local -a files=("${@/#/tests/integration/test_}")
    ((${#files[@]})) || files=(tests/integration tests/wire)
    (($# == 0)) || files=("${files[@]/%/.py}")
    if [[ $preset == asan ]]; then
        local -a ignored=("${SHELL_TESTS[@]/#/--ignore=tests/integration/test_}")
        files+=("${ignored[@]/%/.py}")
    fi
    # They wait more than they work, so a third at a time is a gain on two processors. The thread sanitizer's need all they get.
    local workers=$(($(nproc) + 1))
    [[ $preset != tsan ]] || workers=0
    "$PYTHON" -m pytest -q -p no:cacheprovider -n "$workers" --dist loadfile --durations=10 --junit-xml="$REPORTS/$preset-integration.xml" "${files[@]}"
}

run_step() {
    local preset=${1%%-*}
    environment "$preset"
    case $1 in
        deps) deploy/deps.sh --test && tests/foreign/install.sh ;;
        *-build) build "$preset" ;;
        *-unit) unit "$preset" ;;
        tsan-integration) integration tsan "${TSAN_TESTS[@]}" ;;
        *-integration) integration "$preset" ;;
        # Always the same chance: what fails here can be looked at again with the same seed.
        *-crash) tests/crash/run.sh --kills 60 --seed 1 --junit "$REPORTS/$1.xml" ;;
        # Configured a second time, there is nothing to build.
        lint-rebuild) cmake --preset release -DBUILD_TESTING=ON && cmake --build --preset release -- -n | grep 'no work to do' ;;
        lint-format) tests/lint/format.sh ;;
        lint-source) "$PYTHON" tests/lint/source.py ;;
        lint-shell) tests/lint/shell.sh ;;
        lint-symbols) tests/lint/symbols.sh build/release ;;
        lint-tidy) tests/lint/tidy.sh build/release ;;
    esac
}

# count REPORT: prints "passed failed" of a JUnit file.
count() {
    "$PYTHON" - "$1" <<'END'
import sys
import xml.etree.ElementTree as tree

suites = [s for s in tree.parse(sys.argv[1]).iter("testsuite")]
total, bad, skipped = (sum(int(s.get(k, 0)) for s in suites) for k in ("tests", "failures", "skipped"))
bad += sum(int(s.get("errors", 0)) for s in suites)
skipped += sum(int(s.get("disabled", 0)) for s in suites)
print(max(0, total - bad - skipped), bad)
END
}

# A step without a report counts as one test. A step that fails without a failed test in its report counts as one failed.
step() {
    local name=$1 start=$SECONDS rc=0 passed=1 failed=0 report=$REPORTS/$1.xml
    printf '\n=== %s\n' "$name"
    rm -f -- "$report"
    (run_step "$name") </dev/null || rc=$?
    if [[ -s $report ]]; then
        read -r passed failed < <(count "$report") || { passed=0 failed=1; }
        ((rc == 0 || failed > 0)) || failed=1
    elif ((rc != 0)); then
        passed=0 failed=1
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
    NAMES+=("$name")
    DURATIONS+=($((SECONDS - start)))
    RESULTS+=("$passed passed, $failed failed")
    return "$rc"
}

# wanted NAME: a step that was asked for, or the build of one.
wanted() {
    [[ -z $ONLY || $1 == deps || $1 == "$ONLY"* ]] || [[ $1 == "${ONLY%%-*}-build" ]] ||
        [[ $1 == release-build && $ONLY =~ ^lint-(symbols|tidy) ]]
}

summary() {
    local i
    printf '\n%-22s %8s  %s\n' STEP SECONDS RESULT
    for i in "${!NAMES[@]}"; do
        printf '%-22s %8s  %s\n' "${NAMES[$i]}" "${DURATIONS[$i]}" "${RESULTS[$i]}"
    done
    printf '\n%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && PASSED > 0))
}

main() {
    parse_options "$@"
    mkdir -p "$REPORTS"
    local -a steps=("${STEPS[@]}")
    [[ $QUICK == no ]] || steps=("${QUICK_STEPS[@]}")
    local name broken=
    for name in "${steps[@]}"; do
        wanted "$name" || continue
        # What was not built cannot be tested: its steps would only repeat the one failure.
        [[ -z $broken || $name != "$broken"-* ]] || continue
        if ! step "$name"; then
            [[ $name != deps ]] || break
            [[ $name != *-build ]] || broken=${name%-build}
        fi
    done
    summary
}

main "$@"
