#!/usr/bin/env bash
# Tries every fault some times on every command and writes the table of documentation/crash_safety.md.
#     tests/faults/run.sh [TRIES] [words for pytest]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec pytest -n 0 -m long tests/faults --write_page --tries "${1:-3}" "${@:2}"
