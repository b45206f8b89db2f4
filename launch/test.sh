#!/usr/bin/env bash
# Sets up .venv and runs the tests; --all also runs the slow ones. Other arguments go to pytest.
set -euo pipefail
# shellcheck source=launch/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
set_up test
marks=(-m "not slow")
if [ "${1:-}" = "--all" ]; then marks=(); shift; fi
vlmjax data build easy_vqa >/dev/null
exec python -m pytest "${marks[@]}" --durations=10 -rs "$@"
