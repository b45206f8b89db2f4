#!/usr/bin/env bash
# Runs one job as N processes on this machine, as the hosts of a pod: launch/local.sh N -- vlmjax train --config=… --workdir=…
# Lines of output begin with the number of their process. SIGTERM and SIGINT go to all. When one process fails, the others are ended within a minute,
# and this script with the first failing status, or 2 where a process ended with 2: a mistake in the command or its config.
# Processes find each other by VLMJAX_COORDINATOR, VLMJAX_PROCESSES and VLMJAX_PROCESS_ID; all else of the environment (XLA_FLAGS) is theirs as it is.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/helpers.sh
source "$top/launch/helpers.sh"

usage="usage: launch/local.sh N -- COMMAND …   (N processes that form one job)"
[[ ${1:-} =~ ^[1-9][0-9]*$ && ${2:-} == -- && $# -ge 3 ]] || die "$usage"
count=$1
shift 2
again="launch/local.sh $count -- $(quoted "$@")"
poll=${VLMJAX_POLL:-0.5} grace=${VLMJAX_GRACE:-45}  # grace: seconds from TERM to KILL
number_or_die VLMJAX_POLL "$poll" 0.5
number_or_die VLMJAX_GRACE "$grace" 0.5
host=$(hostname)

[ -d "$top/.venv/bin" ] && PATH=$top/.venv/bin:$PATH
command -v "$1" >/dev/null || die "$1: no such command here (launch/demo.sh and launch/test.sh set up .venv, which has vlmjax)"

# Below the ports that the system hands out by itself.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} PYTHONUNBUFFERED=1
export VLMJAX_COORDINATOR VLMJAX_PROCESSES=$count
VLMJAX_COORDINATOR=127.0.0.1:$(free_port)

folder=$(mktemp -d)
readers=() killer=
running=()  # process id → number
kill_group() { kill -KILL -- "-$1" 2>/dev/null || true; }
# shellcheck disable=SC2329
cleanup() {
  local pid
  for pid in "${!running[@]}" $killer; do kill_group "$pid"; done
  rm -rf "$folder"
}
trap cleanup EXIT
told=
signal() {
  local pid
  for pid in "${!running[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done
}
trap 'told=TERM; signal TERM' TERM
trap 'told=INT; signal INT' INT

# Groups of their own: a terminal's Ctrl-C reaches this script alone, which forwards it once, and what a dead process left behind is ended with its group.
set -m
exec 7>&2 2>/dev/null  # bash's own words on ended jobs
complain() { printf 'local.sh: %s\n' "$*" >&7; }
for ((i = 0; i < count; i++)); do
  mkfifo "$folder/$i"
  sed -u "s/^/[$i] /" <"$folder/$i" &
  readers+=("$!")
  VLMJAX_PROCESS_ID=$i "$@" >"$folder/$i" 2>&1 </dev/null &
  running[$!]=$i
done

first=0 mistake=0
fail() {  # process id, number, status: of the first one
  first=$3
  if [ -z "$told" ]; then
    complain "process $2 of $count on $host (pid $1) $(ending "$first"); ending the other ${#running[@]}"
    signal TERM
  fi
  ((${#running[@]} == 0)) || { (sleep "$grace"; for pid in "${!running[@]}"; do kill_group "$pid"; done) & killer=$!; }
}
# Looked at in turn: `wait -n` of bash 5.1 and 5.2 may miss one of two that end together.
while ((${#running[@]})); do
  sleep "$poll"
  for pid in "${!running[@]}"; do
    kill -0 "$pid" 2>/dev/null && continue
    status=0
    wait "$pid" 2>/dev/null || status=$?
    i=${running[$pid]}
    unset "running[$pid]"
    kill_group "$pid"  # else what it left behind keeps its reader waiting
    ((status != 2)) || mistake=1
    ((status == 0 || first)) || fail "$pid" "$i" "$status"
  done
done
wait "${readers[@]}" 2>/dev/null || true

if ((mistake)); then
  complain "a mistake in the command or its config: the lines above name it; then type: $again"
  exit 2
elif [ -n "$told" ]; then
  complain "stopped by SIG$told; to resume, type: $again"
  exit "$((first ? first : 128 + $(kill -l "$told")))"
elif ((first)); then
  complain "to resume, type: $again"
fi
exit "$first"
