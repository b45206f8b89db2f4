#!/usr/bin/env bash
# Sets up .venv and runs the tests; --all also runs the slow ones. Other arguments go to pytest.
set -euo pipefail
# shellcheck source=launch/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
set_up test
marks=(-m "not slow")
if [ "${1:-}" = "--all" ]; then marks=(); shift; fi
vlmjax data build easy_vqa >/dev/null
# two processes share the files: one alone leaves the second core to compiling
exec python -m pytest "${marks[@]}" -n 2 --dist loadfile --durations=10 -rs "$@"
