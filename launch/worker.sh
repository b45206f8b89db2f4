#!/usr/bin/env bash
# Runs on every worker of a slice, in ~/vlmjax, where tpu.sh copies it; what it keeps lies beside it.
#   worker.sh install CODE         CODE (COMMIT, or COMMIT+SUM with code.patch) from code.bundle, with its packages in venv; skips what is there
#   worker.sh start IPS SECRETS    starts ./command, detached, on the worker whose address is one of IPS (joined by commas); SECRETS is env (a file) or none
#   worker.sh state                worker|host|none, running, ended, lost or stopped|exit status|last start or resume it printed|CODE|last line of its log
#   worker.sh logs LINES [follow]
#   worker.sh stop SECONDS [keep]  ends ./command: TERM, then KILL after SECONDS; with keep, as a person's wish that tpu.sh watch respects
set -euo pipefail
umask 077
cd "$(dirname "${BASH_SOURCE[0]}")"
export PATH=$HOME/.local/bin:$PATH

fail() { echo "worker.sh on $(hostname): $*" >&2; exit 1; }

# The images have Python 3.10, vlmjax needs 3.11. uv brings 3.12 without root and without apt, whose lock the system's own upgrades hold after a start;
# it is one build for all workers and every creation of the slice. versions.txt pins the packages when a run goes on: bit for bit needs the same ones.
install() {
  local code=$1 commit=${1%%+*} packages
  if [ "$(cat installed 2>/dev/null)" = "$code" ]; then
    echo "$(hostname): has $code"
    return
  fi
  rm -f installed
  if ! command -v uv >/dev/null; then
    python3 -m pip install --quiet --user uv || curl -LsSf https://astral.sh/uv/install.sh | sh || fail "uv cannot be installed: is PyPI reachable?"
  fi
  [ -x venv/bin/python ] || uv venv --quiet --clear --python 3.12 venv
  # A checkout, not an archive: record.json then names the commit, with + where the patch changes it.
  [ -d code/.git ] || git init --quiet code
  git -C code fetch --quiet ../code.bundle HEAD
  git -C code checkout --quiet --force --detach "$commit"
  git -C code clean --quiet --force -d
  [ "$code" = "$commit" ] || git -C code apply --whitespace=nowarn ../code.patch
  packages=$(cat code/setup.cfg code/pyproject.toml versions.txt 2>/dev/null | cksum || true)
  if [ "$(cat packages 2>/dev/null)" != "$packages" ]; then
    [ -e versions.txt ] || touch versions.txt
    uv pip install --quiet --python venv/bin/python --constraint versions.txt --editable './code[tpu]'
    echo "$packages" >packages
  fi
  uv pip freeze --python venv/bin/python | { grep -v '^-e ' || true; } >installed.txt
  echo "$code" >installed
  echo "$(hostname): installed $code"
}

# Which of the slice's addresses is mine: jax numbers the workers of a slice in the same order.
worker_of() {
  local ip n=0 mine
  mine=" $(hostname -I) "
  for ip in ${1//,/ }; do
    [[ $mine == *" $ip "* ]] && { echo "$n"; return; }
    n=$((n + 1))
  done
  fail "none of the slice's addresses ($1) is one of mine ($mine)"
}

# Whoever holds the lock is ./command, the shell that waits for it, or a process one of them left behind.
held() { ! (exec 8>>lock; flock --nonblock 8); }

group() { kill "-$1" -- "-$(cat pid)" 2>/dev/null || true; }

start() {
  local ips=$1 worker count tries
  worker=$(worker_of "$ips")
  count=$(tr ',' '\n' <<<"$ips" | wc -l)
  if held; then
    [ -e status ] || fail "a command runs already: $(cat command)"
    group KILL
  fi
  [ "$2" = none ] && rm -f env
  [ ! -e env ] || chmod 600 env
  rm -f status stopped pid main
  echo "$worker" >worker
  echo "=== $(date -u +%FT%TZ) worker $worker of $count on $(hostname): $(cat command)" >>job.log
  setsid nohup bash worker.sh job "$worker" "$count" "${ips%%,*}:8476" >>job.log 2>&1 </dev/null &
  for ((tries = 0; tries < 100; tries++)); do
    [ ! -e pid ] || { echo "$worker: started on $(hostname)"; return; }
    sleep 0.1
  done
  fail "it did not start: $(tail -n 1 job.log)"
}

# The command itself, under a shell that outlives ssh and writes its exit status.
job() {
  local line status=0
  exec 9>>lock
  flock --timeout 10 9 || fail "another command holds the lock"
  echo "$$" >pid.new
  mv pid.new pid
  export PATH=$PWD/venv/bin:$PATH PYTHONUNBUFFERED=1
  if (($2 > 1)); then export VLMJAX_COORDINATOR=$3 VLMJAX_PROCESSES=$2 VLMJAX_PROCESS_ID=$1; fi
  while IFS= read -r line || [ -n "$line" ]; do
    [[ $line =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] && export "${line?}"
  done < <(cat env 2>/dev/null)
  trap : TERM HUP INT  # the machine's end reaches all its processes: the command is waited for
  cd code
  # This shell's own word on a killed command would be the last line of the log.
  { bash -c 'echo "$$" >../main; exec bash ../command' </dev/null 2>&7 7>&- || status=$?; } 7>&2 2>/dev/null
  cd ..
  echo "=== $(date -u +%FT%TZ) worker $1 on $(hostname): exit status $status" >>job.log
  echo "$status" >status.new
  mv status.new status
}

state() {
  local what=none status=- worker=- marker='' last=''
  [ ! -e worker ] || worker=$(cat worker)
  if [ -e status ]; then
    what=ended status=$(cat status)
  elif held; then
    what=running
  elif [ -e pid ]; then
    what=lost  # the machine was started again, or the shell of ./command was killed
  fi
  [ ! -e stopped ] || [ "$what" = running ] || what=stopped
  if [ -e job.log ]; then
    marker=$(awk '/^=== .*: exit status [0-9]+$/ {next} /^=== / {m = ""} /^[A-Za-z_0-9-]+: (starts|resumes at step [0-9]+)$/ {m = $0} END {print m}' job.log)
    last=$(grep -v '^===\|^[[:space:]]*$' job.log | tail -n 1 | tr -d '\r|' | cut -c1-300 || true)
  fi
  printf '%s|%s|%s|%s|%s|%s|%s\n' "$worker" "$(hostname)" "$what" "$status" "$marker" "$(cat installed 2>/dev/null)" "$last"
}

logs() {
  local follow=()
  [ "${2:-}" != follow ] || follow=(--follow=name --retry)
  [ -e job.log ] || { echo "no command was started here"; return; }
  tail --lines="$1" "${follow[@]}" job.log | sed -u "s/^/[$(cat worker)] /"
}

stop() {
  local tries
  if ! held || [ -e status ]; then
    echo "$(hostname): nothing runs"
    return
  fi
  [ "${2:-}" != keep ] || touch stopped
  kill -TERM "$(cat main)" 2>/dev/null || group TERM
  for ((tries = 0; tries < $1 * 10; tries++)); do
    [ ! -e status ] || break
    sleep 0.1
  done
  ! held || group KILL
  [ -e status ] || echo 137 >status
  echo "$(hostname): stopped, exit status $(cat status)"
}

"$@"
