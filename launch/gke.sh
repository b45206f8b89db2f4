#!/usr/bin/env bash
# Slices of Cloud TPU as clusters of GKE, by name: launch/gke.sh up|run|watch|logs|stop|down NAME [flags] [-- COMMAND …]. `launch/gke.sh --help` says more.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/helpers.sh
source "$top/launch/helpers.sh"

usage() {
  cat <<'TEXT'
launch/gke.sh up NAME               makes a cluster with the slice, or with several (accelerator 2xv5e-64), through xpk; builds and pushes an image of the commit checked out here
launch/gke.sh run NAME -- COMMAND   starts COMMAND as a JobSet, a pod for each host; a preempted or killed one starts again by itself
launch/gke.sh watch NAME            says what it does until it ends, and with what; may be left and typed again
launch/gke.sh logs NAME             prints the log of --worker=0 (a number, or all) of every slice
launch/gke.sh stop NAME             ends the command: it may save first, for VLMJAX_GRACE seconds (60)
launch/gke.sh down NAME             deletes the cluster, if `up` of this checkout made it
Every subcommand may be typed again, and takes:
  --dry-run          prints the calls it would make and makes none
  --slices=FILE      names, zones, projects, buckets (launch/slices.conf; launch/slices.example.conf says what stands there)
  --env-file=FILE    lines NAME=VALUE for the command's environment, such as HF_TOKEN=…: of mode 600 (launch/secrets.env, if there); whoever may read the JobSet can read them
  --allow-dirty      sends uncommitted changes along; without it they are refused
  --timeout=SECONDS  how long `up` waits for the cluster (3600; 0: for ever)
  --attempts=N       `run`: so many restarts, preemptions and crashes alike (20); `run` again goes on
  --worker=K|all  --lines=N  --follow     of `logs` (0, 100)
  --owned=ID         takes over, for good, a cluster that another checkout made: the line that refuses it says its ID
In COMMAND, {bucket} stands for the slice's bucket. Needs gcloud, kubectl, docker and xpk (pip install xpk).
TEXT
}

# shellcheck source=launch/arguments.sh
source "$top/launch/arguments.sh"
read_arguments "$@"
attempts=${attempts:-20}
kept_files=(Dockerfile)

# shellcheck source=launch/slice.sh
source "$top/launch/slice.sh"
read_slice "$slices"
[ "$how" = gke ] || die "$slices: $name is not a cluster of GKE (how is $how): launch/tpu.sh $action $name"
for program in gcloud kubectl docker xpk; do
  ((dry_run)) || command -v "$program" >/dev/null || die "$program is not installed; launch/gke.sh needs gcloud, kubectl (gcloud components install kubectl gke-gcloud-auth-plugin), docker and xpk (pip install xpk)"
done
export KUBECONFIG=$kept/kubeconfig  # not the user's own, whose current cluster stays what it is

# shellcheck source=launch/code.sh
source "$top/launch/code.sh"

place=("--cluster=$name" "--zone=$zone" "--project=$project" --quiet)  # of xpk

failed() {
  complain "$name: a call failed; the same command goes on from here. It said:"
  said | tail -n 10 >&2
  exit 1
}

# --- cluster ----------------------------------------------------------------------------------------------------------------------------------------

# Sets state (ABSENT, RUNNING or as Cloud says), mark and id (whose it is) and location; 1 where Cloud does not answer.
look() {
  local found made by
  state=ABSENT mark='' id='' location=$region
  found=$(cloud 120 container clusters list "--project=$project" "--filter=name=$name" '--format=value[separator="|"](status,location,resourceLabels.vlmjax,resourceLabels.vlmjax_owner,resourceLabels.vlmjax_id)') || return 1
  if ((dry_run)); then
    state=${pretended:-RUNNING} mark=$name/$owner
    return
  fi
  [ -n "$found" ] || return 0
  [ "$(wc -l <<<"$found")" = 1 ] || die "$project has several clusters $name: $(cut -d '|' -f 2 <<<"$found" | paste -sd ' '); give yours another name"
  IFS='|' read -r state location made by id <<<"$found"
  mark=$made/$by
}

ours_or_die() { if labelled_ours; then take_over; else refuse "the cluster $name in $location"; fi; }

ready_or_die() {
  look || failed
  [ "$state" != ABSENT ] || die "$name: there is no such cluster: launch/gke.sh up $name"
  ours_or_die
  [ "$state" = RUNNING ] || die "$name is $state: launch/gke.sh up $name"
  credentials || failed
}

credentials() {
  ((dry_run)) || mkdir -p "$kept"
  cloud 120 container clusters get-credentials "$name" "--location=$location" "--project=$project" >/dev/null
}

# xpk makes the cluster and its nodes, and installs what JobSets need; it goes on where an earlier call ended.
make_cluster() {
  local capacity new
  keep_id
  new=$(known_id)  # none under --dry-run before the first `up`
  case $tier in
    spot) capacity=(--spot) ;;
    on-demand) capacity=(--on-demand) ;;
    reserved) capacity=() ;;  # --reservation=NAME stands among the flags
  esac
  [[ $tier != reserved || " $flags " == *" --reservation="* ]] || die "$slices: $name: a reserved cluster needs --reservation=NAME among its flags"
  say "$name: making a cluster with $slice_count x $accelerator in $zone ($tier)"
  # shellcheck disable=SC2086
  call "$((timeout ? timeout : 86400))" xpk cluster create "${place[@]}" "--tpu-type=$accelerator" "--num-slices=$slice_count" "${capacity[@]}" \
    "--custom-cluster-arguments=--labels=gke_product_type=xpk,vlmjax=$name,vlmjax_owner=$owner,vlmjax_id=${new:-ID}" $flags >&2
}

# --- image and command ------------------------------------------------------------------------------------------------------------------------------

image() { echo "gcr.io/$project/vlmjax:$(kept_code | tr + -)"; }

put_image() {
  local tag
  tag=$(image)
  if [ "$(cat "$kept/image" 2>/dev/null)" = "$tag" ]; then
    say "$name: $tag is there"
    return
  fi
  say "$name: building and pushing $tag (minutes, the first time)"
  call 3600 docker build --platform=linux/amd64 "--build-arg=CODE=$(kept_code)" "--tag=$tag" "$kept" >&2 || return 1
  call 3600 docker push --quiet "$tag" >&2 || return 1
  ((dry_run)) || echo "$tag" >"$kept/image"
}

# Sets job (absent, running, Completed, Failed), restarts and message (the last word of its conditions); 1 where the cluster does not answer.
look_at_job() {
  local found
  job=absent restarts=0 message=''
  found=$(call 120 kubectl get jobset "$name" --ignore-not-found '-o=jsonpath={.metadata.name}|{.status.terminalState}|{.status.restarts}|{.status.conditions[-1:].message}') || return 1
  [ -n "$found" ] || return 0
  IFS='|' read -r _ job restarts message <<<"$found"
  job=${job:-running} restarts=${restarts:-0}
}

# The exit statuses of its pods that ended with one, the highest last.
statuses() {
  call 120 kubectl get pods "--selector=jobset.sigs.k8s.io/jobset-name=$name" '-o=jsonpath={range .items[*]}{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}' | grep -E '^[1-9]' | sort -n -u || true
}

pods_log() { call "$1" kubectl logs "--selector=jobset.sigs.k8s.io/jobset-name=$name${2:+,$2}" --prefix --all-containers --max-log-requests=1000 "${@:3}"; }

# --- subcommands ------------------------------------------------------------------------------------------------------------------------------------

up() {
  local code pretended=ABSENT
  code=$(code_here)
  check_bucket
  pack "$code"
  look || failed
  if [ "$state" != ABSENT ]; then ours_or_die; fi
  if [ "$state" = RUNNING ] && [ -e "$kept/made" ]; then
    say "$name: the cluster is there, in $location"
  else
    make_cluster || failed
    ((dry_run)) || touch "$kept/made"
  fi
  put_image || failed
  say "$name: ready; next: launch/gke.sh run $name -- vlmjax train --config=… --workdir={bucket}/…"
}

run() {
  local code secrets=()
  ((${#command[@]})) || die "which command? launch/gke.sh run $name -- vlmjax train --config=… --workdir=gs://…"
  code=$(code_here)
  ready_or_die
  look_at_job || failed
  if [ "$job" = running ]; then
    if [ "$(shown_command 2>/dev/null)" = "$(quoted "${command[@]//\{bucket\}/$bucket}")" ] && [ "$(kept_code)" = "$code" ]; then
      say "$name: runs already; launch/gke.sh logs $name --follow shows it"
      return
    fi
    die "$name: a command runs: $(shown_command 2>/dev/null); launch/gke.sh stop $name ends it"
  fi
  pack "$code"
  put_image || failed
  keep_command
  [ -z "$env_file" ] || secrets=("--env-file=$env_file")
  [ "$job" = absent ] || remove_job || failed
  # A mistake of the user (exit status 2) is not tried again; xpk lets 42 and 127 to 255 start again, among them what a killed and a preempted process end with.
  call 900 xpk workload create "${place[@]}" "--workload=$name" "--tpu-type=$accelerator" "--num-slices=$slice_count" "--docker-image=$(image)" "--command=exec $(shown_command)" \
    "--max-restarts=$attempts" --restart-on-exit-codes=1 "--termination-grace-period-seconds=$grace" "${secrets[@]}" >&2 || failed
  say "$name: started; next: launch/gke.sh watch $name (or logs $name --follow)"
}

remove_job() { call "$((grace + 180))" kubectl delete jobset "$name" --ignore-not-found "--timeout=$((grace + 120))s" >/dev/null; }

watch() {
  local told='' line unreachable=0 status
  ready_or_die
  while :; do
    if ! look_at_job; then
      line="the cluster does not answer: $(why)"
      unreachable=$((unreachable + 1))
      ((unreachable < 30)) || { complain "$name: the cluster did not answer 30 times; nothing is deleted"; exit 1; }
    else
      unreachable=0
      case $job in
        absent) ((dry_run)) || die "$name: nothing runs: launch/gke.sh run $name -- COMMAND" ;;
        Completed)
          say "$name: ended with exit status 0, after $restarts restarts"
          return ;;
        Failed)
          status=$(statuses)
          complain "$name: failed after $restarts restarts${status:+, exit status $(paste -sd ' ' <<<"$status")}: $message"
          pods_log 120 '' --tail=3 >&2 || true
          [[ ! $status =~ $mistakes ]] || exit 2  # of the user, on every host
          exit 1 ;;
      esac
      line="$job, $restarts restarts${message:+ ($message)}"
    fi
    ((!dry_run)) || return 0
    [ "$line" = "$told" ] || say "$(date +%H:%M) $name: $line"
    told=$line
    sleep "$poll"
  done
}

logs() {
  local more=("--tail=$lines") which=''
  ready_or_die
  ((!follow)) || more+=(--follow)
  [ "$worker" = all ] || which=batch.kubernetes.io/job-completion-index=$worker
  pods_log 8640000 "$which" "${more[@]}" || failed
}

stop() {
  ready_or_die
  remove_job || failed
  say "$name: stopped"
}

down() {
  look || failed
  if [ "$state" = ABSENT ] || [ "$state" = STOPPING ]; then
    say "$name: nothing to delete in $project: it is $state"
    return
  fi
  ours_or_die
  if [ "$state" = RUNNING ]; then
    { credentials && remove_job; } || complain "note: the command could not be ended first: $(why)"
  fi
  call 3600 xpk cluster delete "${place[@]}" --force >&2 || failed
  ((dry_run)) || rm -f "$kept/made" "$kept/id"  # the next cluster of this name is another one
  say "$name: deleted"
}

"$action"
