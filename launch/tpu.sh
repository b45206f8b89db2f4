#!/usr/bin/env bash
# Slices of Cloud TPU by name: launch/tpu.sh up|run|watch|logs|stop|down NAME [flags] [-- COMMAND …]. `launch/tpu.sh --help` says more.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/helpers.sh
source "$top/launch/helpers.sh"

usage() {
  cat <<'TEXT'
launch/tpu.sh up NAME               asks for the slice and waits for it; installs Python, vlmjax at the commit checked out here, and its packages on every worker
launch/tpu.sh run NAME -- COMMAND   starts COMMAND on every worker; it outlives this machine
launch/tpu.sh watch NAME            looks after it: when the slice is lost asks for it again, installs the same and starts the same command, until that ends with 0
launch/tpu.sh logs NAME             prints the log of --worker=0 (a number, or all)
launch/tpu.sh stop NAME             ends the command: it may save first, for VLMJAX_GRACE seconds (60)
launch/tpu.sh down NAME             deletes the slice, if `up` of this checkout made it; a `watch` of this checkout ends
Every subcommand may be typed again, and takes:
  --dry-run          prints the calls it would make and makes none
  --slices=FILE      names, zones, projects, buckets (launch/slices.conf; launch/slices.example.conf says what stands there)
  --env-file=FILE    lines NAME=VALUE for the command's environment, such as HF_TOKEN=…: of mode 600, copied as a file (launch/secrets.env, if there)
  --allow-dirty      sends uncommitted changes along; without it they are refused
  --timeout=SECONDS  how long `up` waits for the slice (3600; 0: for ever)
  --attempts=N       `watch` gives up after so many starts in a row without progress, or that failed (5)
  --owned=ID         takes over, for good, a slice that another checkout made: the line that refuses it says its ID
  --worker=K|all  --lines=N  --follow     of `logs` (0, 100)
In COMMAND, {bucket} stands for the slice's bucket.
TEXT
}

# shellcheck source=launch/arguments.sh
source "$top/launch/arguments.sh"
read_arguments "$@"
attempts=${attempts:-5}
assumed=()  # under --dry-run: the states that the slice is taken to have
kept_files=(worker.sh)
# shellcheck source=launch/slice.sh
source "$top/launch/slice.sh"
read_slice "$slices"
[ "$how" != gke ] || die "$slices: $name is a cluster of GKE: launch/gke.sh $action $name"
((dry_run)) || command -v gcloud >/dev/null || die "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

# shellcheck source=launch/code.sh
source "$top/launch/code.sh"

# --- workers ----------------------------------------------------------------------------------------------------------------------------------------

# The kept code on every worker; nothing is done where all have it. 1 where a call fails.
put_code() {
  local code held
  code=$(kept_code)
  held=$(on_workers all 120 'mkdir -p -m 700 vlmjax && cat vlmjax/installed 2>/dev/null || true') || return 1
  if [ -n "$held" ] && [ "$(grep -cxF "$code" <<<"$held")" = "$(workers)" ]; then
    say "$name: all workers have $code"
    return
  fi
  say "$name: installing $code on all workers (minutes, the first time)"
  copy "$kept/code.bundle" "$kept/code.patch" "$kept/versions.txt" "$kept/worker.sh" '' || return 1
  on_workers all 1800 "bash vlmjax/worker.sh install $code" || return 1
  keep_versions || return 1
}

keep_versions() {
  [ ! -s "$kept/versions.txt" ] || return 0
  if ((dry_run)); then on_workers 0 120 'cat vlmjax/installed.txt'; return; fi
  on_workers 0 120 'cat vlmjax/installed.txt' >"$kept/versions.new" || return 1
  mv "$kept/versions.new" "$kept/versions.txt"
}

# Starts the kept command on every worker. 1 where a call fails.
start() {
  local secrets=none file
  if ((dry_run)); then
    file=$env_file
    say "$kept/command: exec $(shown_command)"
  else
    file=$(cat "$kept/env_file")
  fi
  copy "$kept/command" command || return 1
  if [ -n "$file" ]; then
    copy "$file" env || return 1
    secrets='env'
  fi
  on_workers all 300 "bash vlmjax/worker.sh start ${ips:-ADDRESSES} $secrets" || return 1
}

# Sets report: a line per worker, as worker.sh state writes it. 1 where some did not answer.
look_at_workers() {
  report=$(on_all 120 state) || return 1
  ((dry_run)) || [ -z "$report" ] || [ "$(wc -l <<<"$report")" = "$(workers)" ]
}

having() { awk -F '|' -v what="$1" '$3 == what' <<<"$report"; }

# The code that the workers have: one where all have the same.
installed() { cut -d '|' -f 6 <<<"$report" | sort -u | paste -sd ' '; }

# --- subcommands ------------------------------------------------------------------------------------------------------------------------------------

failed() {
  complain "$name: a call failed; the same command goes on from here. It said:"
  said | tail -n 10 >&2
  exit 1
}

found_or_die() {
  look || failed
  ours_or_die_if_there
  [ "$(kind)" = ready ] || die "$name is $state: launch/tpu.sh up $name"
}

ours_or_die_if_there() { [ "$state" = ABSENT ] || ours_or_die; }

# The process of a running command would load what it has not loaded yet from the other code, and `watch` would start it again with that.
replaces_nothing_that_runs() {
  local other
  look || failed
  [ "$(kind)" = ready ] || return 0
  ours_or_die
  look_at_workers || true  # of those that do not answer, installing says so
  other=$(having running | cut -d '|' -f 6 | grep -vxF "$1" | sort -u | paste -sd ' ' || true)
  [ -z "$other" ] || die "$name: a command runs with the code $other, here is $1; stop it first: launch/tpu.sh stop $name"
}

up() {
  local code
  code=$(code_here)
  check_bucket
  assumed=(ABSENT ABSENT READY)
  replaces_nothing_that_runs "$code"
  pack "$code"
  wait_ready "$timeout" || exit 1
  put_code || failed
  say "$name: ready; next: launch/tpu.sh run $name -- vlmjax train --config=… --workdir={bucket}/…"
}

run() {
  local code running
  ((${#command[@]})) || die "which command? launch/tpu.sh run $name -- vlmjax train --config=… --workdir=gs://…"
  code=$(code_here)
  found_or_die
  look_at_workers || failed
  running=$(having running)
  if [ -n "$running" ]; then
    if [ "$(wc -l <<<"$running")" = "$(workers)" ] && [ "$(shown_command)" = "$(quoted "${command[@]//\{bucket\}/$bucket}")" ] && [ "$(installed)" = "$code" ]; then
      say "$name: runs already; launch/tpu.sh logs $name --follow shows it"
      return
    fi
    die "$name: a command runs on $(wc -l <<<"$running") of $(workers) workers: $(shown_command 2>/dev/null), with the code $(installed); launch/tpu.sh stop $name ends it"
  fi
  ((dry_run)) || [ "$(installed)" = "$code" ] ||
    die "$name: its workers have the code $(installed), here is $code: launch/tpu.sh up $name installs it"
  pack "$code"
  keep_versions || failed
  keep_command
  start || failed
  say "$name: started; next: launch/tpu.sh watch $name (or logs $name --follow)"
}

# shellcheck source=launch/watch.sh
source "$top/launch/watch.sh"

logs() {
  local more=''
  ((!follow)) || more=' follow'
  found_or_die
  on_workers "$worker" 8640000 "bash vlmjax/worker.sh logs $lines$more" || failed
}

stop() {
  found_or_die
  on_all "$((grace + 120))" stop "$grace" keep || failed
}

down() {
  look || failed
  case $state in ABSENT | DELETING) ;; *) ours_or_die ;; esac
  # Before anything is deleted: what looks after the slice must not take it for a lost one.
  ((dry_run)) || [ ! -d "$kept" ] || date -u +%FT%T.%NZ >"$kept/down"
  if [ "$state" = ABSENT ] || [ "$state" = DELETING ]; then
    say "$name: nothing to delete in $zone: it is $state"
    return
  fi
  if [ "$(kind)" = ready ]; then
    on_all "$((grace + 120))" stop "$grace" keep || complain "note: the command could not be ended first: $(why)"
  fi
  remove || failed
  ((dry_run)) || rm -f "$kept/id"  # the next slice of this name is another one
  say "$name: deleted"
}

"$action"
