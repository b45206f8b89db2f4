# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by tpu.sh: `watch`.

watch() {
  local starts=0 idle=0 failures=0 before='' seen='' unreachable=0 told='' code
  if ((${#command[@]})); then
    keep_command
  elif [ -n "$env_file" ]; then
    keep_secrets
  fi
  if [ ! -e "$kept/command" ] && ((!dry_run)); then
    die "which command? none was started from this checkout: launch/tpu.sh watch $name -- vlmjax train --config=… --workdir=gs://…"
  fi
  if [ ! -e "$kept/code" ]; then
    code=$(code_here)
    pack "$code"
  fi
  if ((dry_run)); then
    assumed=(READY PREEMPTED ABSENT READY)
    look
    look_at_workers
    say "when the slice is lost:"
    wait_ready 0
    put_code
    start
    return
  fi
  while :; do
    if ! look; then
      tell "Cloud does not answer: $(why)"
    else
      end_after_down
      case $(kind) in
        ready)
          ours_or_die
          if ! look_at_workers; then
            unreachable=$((unreachable + 1))
            tell "$(grep -c . <<<"$report" || true) of $(workers) workers answer: $(why)"
            ((unreachable < 30)) || { complain "$name: not all workers answered 30 times; nothing is deleted: launch/tpu.sh logs $name --worker=all, launch/tpu.sh down $name"; exit 1; }
          else
            unreachable=0
            judge
          fi ;;
        lost | absent)
          say "$(date +%H:%M) $name: $state; $(shown_command) starts again when the slice is back"
          again ;;
        stopped) ours_or_die; die "$name is $state: gcloud compute tpus tpu-vm start $name ${where[*]} starts it" ;;
        *) tell "$state" ;;
      esac
    fi
    sleep "$poll"
  done
}

# A line when it differs from the last one.
tell() {
  [ "$1" = "$told" ] || say "$(date +%H:%M) $name: $1"
  told=$1
}

# What the workers' states mean.
judge() {
  local all marker wrong number host what status last ended bad first=''
  all=$(workers)
  marker=$(cut -d '|' -f 5 <<<"$report" | grep . | head -n 1 || true)
  seen=${marker:-$seen}
  wrong=$(awk -F '|' -v mistakes="$mistakes" '$3 == "ended" && $4 ~ mistakes' <<<"$report" | head -n 1)
  if [ -n "$wrong" ]; then
    IFS='|' read -r number host _ _ _ _ last <<<"$wrong"
    on_all "$((grace + 120))" stop "$grace" >/dev/null || true
    complain "$name: a mistake in the command or its config, says worker $number on $host: $last"
    exit 2
  fi
  if [ -n "$(having stopped)" ]; then
    say "$name: stopped by launch/tpu.sh stop; to go on: launch/tpu.sh run $name -- $(shown_command)"
    exit 0
  fi
  ended=$(awk -F '|' '$3 == "ended" && $4 == 0' <<<"$report" | grep -c . || true)
  if [ "$ended" = "$all" ]; then
    say "$name: done: $(shown_command). The slice is kept: launch/tpu.sh down $name deletes it"
    exit 0
  fi
  bad=$(awk -F '|' '$3 == "lost" || ($3 == "ended" && $4 != 0)' <<<"$report")
  if [ -n "$bad" ]; then
    while IFS='|' read -r number host what status _ _ last; do
      if [ "$what" = lost ]; then status="is gone without an exit status (was the machine started again?)"; else status=$(ending "$status"); fi
      complain "$name: the command on worker $number, $host, $status; its last line: $last"
      first=${first:-$number}
    done <<<"$bad"
    complain "$name: to see more: launch/tpu.sh logs $name --worker=$first; to resume by hand: launch/tpu.sh run $name -- $(shown_command)"
    on_all "$((grace + 120))" stop "$grace" >/dev/null || true
    again
  elif [ -z "$report" ] || [ -n "$(having none)" ]; then
    say "$(date +%H:%M) $name: starting $(shown_command)"
    bring
  else
    tell "runs on $((all - ended)) of $all workers$( [ -z "$seen" ] || echo "; $seen"): $(head -n 1 <<<"$report" | cut -d '|' -f 7)"
  fi
}

# Another start, unless too many in a row saved nothing: each began where the one before it had.
again() {
  if [ -n "$seen" ] && [ "$seen" != "$before" ]; then idle=0; else idle=$((idle + 1)); fi
  [ -z "$seen" ] || before=$seen
  seen=''
  if ((idle >= attempts)); then
    complain "$name: $idle starts in a row made no progress${before:+ (the last: $before)}; giving up. The slice is left as it is: launch/tpu.sh logs $name, launch/tpu.sh down $name"
    exit 1
  fi
  starts=$((starts + 1))
  say "$(date +%H:%M) $name: start $((starts + 1)); $idle in a row without progress, at most $attempts"
  bring
}

# The slice, the code and the command; what fails is seen and tried again at the next look, unless it failed too often in a row.
bring() {
  wait_ready 0 || exit 1
  if put_code && start; then
    failures=0
    return
  fi
  failures=$((failures + 1))
  complain "$name: a call failed: $(why)"
  ((failures < attempts)) || { complain "$name: installing or starting failed $failures times in a row; giving up. The slice is left as it is: launch/tpu.sh logs $name, launch/tpu.sh down $name"; exit 1; }
}
