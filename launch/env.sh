# shellcheck shell=bash
# Sourced by the other scripts: finds a Python, makes .venv beside the README, installs vlmjax[$1] into it, and activates it.
# Nothing is installed twice: a stamp in .venv holds what was installed.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 2

find_python() {
  local candidate
  for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"; return
    fi
  done
  return 1
}

set_up() {
  local extras=$1 python stamp=.venv/vlmjax-installed
  local want; want=$(cat setup.cfg pyproject.toml | cksum)
  if ! { [ -x .venv/bin/python ] && grep -qxF "$extras $want $top" "$stamp" 2>/dev/null; }; then
    if ! python=$(find_python); then
      echo "vlmjax needs Python 3.11 or newer with venv and pip: on Debian or Ubuntu 'apt install python3.11-venv', elsewhere https://www.python.org/downloads/" >&2
      exit 2
    fi
    echo "setting up .venv with $("$python" --version) (once; about a minute)"
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv || exit 2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]" || {
      echo "installing failed: see the lines above (is the package index reachable?)" >&2; exit 2; }
    echo "$extras $want $top" >> "$stamp"
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
}
