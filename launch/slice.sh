# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by tpu.sh and gke.sh: one slice, by its line in the file of slices; calls of gcloud; of a slice that tpu.sh makes its state.

# Sets what the line of $name says.
read_slice() {
  local file=$1 line
  [ -r "$file" ] || die "$file: cannot be read; copy launch/slices.example.conf there and write your project, zones and buckets (or give --slices=FILE)"
  line=$(awk -v name="$name" '$1 == name' "$file")
  [ -n "$line" ] || die "$file: no slice $name; it has: $(awk '!/^#/ && NF {printf "%s ", $1}' "$file")"
  [ "$(wc -l <<<"$line")" = 1 ] || die "$file: $name stands there twice"
  read -r _ accelerator zone how tier project bucket flags <<<"$line"
  [ -n "$bucket" ] || die "$file: $name: needs seven columns: name, accelerator, zone, how, tier, project, bucket (- for none)"
  [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || die "$file: $name: Cloud wants a name of a-z, 0-9 and -, beginning with a letter"
  [[ $how == queued || $how == vm || $how == gke ]] || die "$file: $name: how is $how; write queued, vm or gke"
  [[ $tier == spot || $tier == on-demand || $tier == reserved ]] || die "$file: $name: tier is $tier; write spot, on-demand or reserved"
  [[ $bucket == - || $bucket == gs://* ]] || die "$file: $name: bucket is $bucket; write gs://NAME or -"
  bucket=${bucket%/}
  slice_count=1
  if [[ $how == gke && $accelerator =~ ^([1-9][0-9]*)x(.+)$ ]]; then slice_count=${BASH_REMATCH[1]} accelerator=${BASH_REMATCH[2]}; fi
  accelerator=${accelerator/#v5e-/v5litepod-}
  case $accelerator in  # cloud.google.com/tpu/docs/runtimes
    v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) die "$file: $name: no accelerator $accelerator; vlmjax list topologies has v4, v5e, v5p and v6e" ;;
  esac
  region=${zone%-*}
  where=("--zone=$zone" "--project=$project")
  inside=()  # workers without an address of their own outside are reached from inside
  [[ " $flags " != *" --internal-ips "* ]] || inside=(--internal-ip)
}

# The marks of what this script makes: only that is ever changed or deleted. Labels take a-z, 0-9, _ and -.
owner=$(id -un | tr '[:upper:]' '[:lower:]' | tr -c 'a-z0-9_\n-' '_')

# Several people may have one name, such as root: the slice of this checkout has an id, drawn when it is first asked for, kept until `down` deleted it, and another checkout's with --owned.
known_id() { echo "${owned:-$(cat "$kept/id" 2>/dev/null)}"; }

# Keeps the one of --owned; without it the one that is kept, or another one where there is none.
keep_id() {
  local drawn=$owned held
  ((!dry_run)) || return 0
  if [ -n "$owned" ] || [ ! -e "$kept/id" ]; then
    [ -n "$drawn" ] || drawn=$(head -c 32 /dev/urandom | sha256sum | cut -c1-12) || die "/dev/urandom: cannot be read: $name gets no id"
    { mkdir -p "$kept" && echo "$drawn" >"$kept/id.$$"; } || die "$kept: cannot be written: $name gets no id"
    if [ -n "$owned" ]; then mv -f "$kept/id.$$" "$kept/id"; else mv -n "$kept/id.$$" "$kept/id" || true; fi  # -n: of two at once the first
    rm -f "$kept/id.$$"
  fi
  held=$(cat "$kept/id" 2>/dev/null || true)
  [[ $held =~ ^[0-9a-f]{12}$ && $held = "${owned:-$held}" ]] || die "$kept/id: holds no id; delete it, or give --owned=ID"
  owned=''
}

# Calls a program for at most $1 seconds; what it writes to stderr is kept in $errors. Under --dry-run prints the call and makes none.
call() {
  local limit=$1
  shift
  if ((dry_run)); then
    quoted "$@" >&3
    echo >&3
    return
  fi
  timeout --foreground --kill-after=10 "$limit" "$@" 2>"$errors" </dev/null
}

cloud() { call "$1" gcloud "${@:2}"; }

# What a failed call said, without gcloud's own words about its connections; of that, the last line.
said() { grep -Ev '^[[:space:]]*$|^##### |ttempting to |^Using |^Retrying: |^Failed to execute command on multiple' "$errors" || cat "$errors"; }

why() { said | tail -n 1; }

missing() { grep -i 'not.found' "$errors" | grep -qF "$name"; }

# It exists, and a note where it is far away.
check_bucket() {
  local location
  [ "$bucket" != - ] || return 0
  location=$(cloud 120 storage buckets describe "$bucket" "--project=$project" '--format=value(location)') ||
    die "$bucket: cannot be described ($(why)); to make it: gcloud storage buckets create $bucket --project=$project --location=$region --uniform-bucket-level-access"
  ((dry_run)) || [ "${location,,}" = "$region" ] || complain "note: $bucket is in $location, the slice in $region: reading from afar is slow and is charged"
}

describe_node() { cloud 120 compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value[separator="|"](state,labels.vlmjax,labels.vlmjax_owner,labels.vlmjax_id,networkEndpoints[].ipAddress)'; }

describe_request() {
  cloud 120 compute tpus queued-resources describe "$name" "${where[@]}" \
    '--format=value[separator="|"](state.state,createTime,tpu.nodeSpec[0].node.labels.vlmjax,tpu.nodeSpec[0].node.labels.vlmjax_owner,tpu.nodeSpec[0].node.labels.vlmjax_id)'
}

# Sets state (ABSENT, READY or as Cloud says), mark and id (whose it is), asked_at (when a request was made) and ips (of its workers, joined by commas); 1 where Cloud does not answer.
look() {
  local found made by
  state='' mark='' id='' ips='' asked_at=''
  if ((dry_run)); then
    state=${assumed[0]:-READY} mark=$name/$owner
    assumed=("${assumed[@]:1}")
    [ "$how" = vm ] || describe_request
    [ "$how:$state" = queued:ABSENT ] || describe_node
    return
  fi
  if [ "$how" = queued ]; then
    if ! found=$(describe_request); then
      missing || return 1
      state=ABSENT
      return
    fi
    IFS='|' read -r state asked_at made by id <<<"$found"
    mark=$made/$by
    [ "$state" = ACTIVE ] || return 0
  fi
  if ! found=$(describe_node); then
    missing || return 1
    # A request may still be called active when its preempted slice is gone.
    if [ "$how" = queued ]; then state=PREEMPTED; else state=ABSENT; fi
    return
  fi
  IFS='|' read -r state made by id ips <<<"$found"
  mark=$made/$by ips=${ips//;/,}
  if labelled_ours && [ -d "$kept" ]; then echo "$asked_at" >"$kept/asked_at"; fi
}

workers() { tr ',' '\n' <<<"$ips" | wc -l; }

# By its id, whatever its owner is called; a slice of before there were ids, by its owner.
labelled_ours() { if [ -n "$id" ]; then [ "$id" = "$(known_id)" ]; else [ "$mark" = "$name/$owner" ]; fi; }

# By its labels; a request that shows none any more, by the time at which the one of our slice was made.
ours() {
  labelled_ours || { [ "$mark" = / ] && [ -n "$asked_at" ] && [ "$asked_at" = "$(cat "$kept/asked_at" 2>/dev/null)" ]; }
}

ours_or_die() { if ours; then take_over; else refuse "$name in $zone"; fi; }

# What --owned says is kept once it has been found to be true.
take_over() { [ -z "$owned" ] || [ -z "$id" ] || keep_id; }

# $1: what is somebody else's.
refuse() {
  [ -z "$id" ] || die "$1 was not made from this checkout (its labels say ${mark//\//, by }, id $id): it is left alone; give yours another name, or, if it is yours, take it over: $script $action $name --owned=$id"
  die "$1 was not made by $owner with this script (its labels say ${mark//\//, by }): it is left alone; give yours another name"
}

# lost: its machines are gone or going, only its name is left. waiting: it is on its way.
kind() {
  case $state in
    READY) echo ready ;;
    ABSENT) echo absent ;;
    SUSPENDING | SUSPENDED | FAILED | PREEMPTED | TERMINATED) echo lost ;;
    STOPPED | STOPPING | HIDING | HIDDEN) echo stopped ;;
    *) echo waiting ;;
  esac
}

create() {
  local call=() new
  keep_id
  new=$(known_id)  # none under --dry-run before the first `up`
  call=("${where[@]}" "--accelerator-type=$accelerator" "--labels=vlmjax=$name,vlmjax_owner=$owner,vlmjax_id=${new:-ID},vlmjax_commit=$(kept_commit)")
  case $tier in
    spot) call+=(--spot) ;;
    reserved) call+=(--reserved) ;;
  esac
  # shellcheck disable=SC2206
  call+=($flags --quiet)
  say "$name: asking for $accelerator in $zone ($how, $tier)"
  if [ "$how" = queued ]; then
    [[ " $flags " == *" --runtime-version="* ]] || call=("--runtime-version=$runtime" "${call[@]}")
    cloud 900 compute tpus queued-resources create "$name" "--node-id=$name" "${call[@]}" >/dev/null
  else
    call=("${call[@]/#--runtime-version=/--version=}")
    [[ " $flags " == *" --runtime-version="* ]] || call=("--version=$runtime" "${call[@]}")
    cloud 3600 compute tpus tpu-vm create "$name" "${call[@]}" >/dev/null
  fi
}

# Only after `ours`.
remove() {
  if [ "$how" = queued ]; then
    cloud 1800 compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet >/dev/null
  else
    cloud 1800 compute tpus tpu-vm delete "$name" "${where[@]}" --quiet >/dev/null
  fi
}

# Ends `watch` and `up` where `down` was typed since they began: the slice is not asked for again.
end_after_down() {
  ((!dry_run)) && [ "$(cat "$kept/down" 2>/dev/null)" != "$last_down" ] || return 0
  say "$name: launch/tpu.sh down $name was typed meanwhile; $action ends, the slice is $state$( [ "$state" = ABSENT ] || echo "; if it stays so, type it again")"
  [ "$action" = watch ] || exit 1
  exit 0
}

# Waits until the slice is there: asks for it where it is not, and again where it was lost. $1: seconds to wait, 0 for ever; then 1, and a line that says why.
wait_ready() {
  local limit=$1 began=$SECONDS asked=0 failed=0 told='' saidat=0 line
  while :; do
    if ! look; then
      ((limit == 0)) || { complain "$name: Cloud does not answer: $(why)"; return 1; }
      line="Cloud does not answer: $(why)"
    else
      end_after_down
      line=$state
      case $(kind) in
        ready)
          ours_or_die
          say "$name: READY in $zone${ips:+, $(workers) workers}"
          return ;;
        absent)
          if create; then
            asked=1
            continue
          fi
          complain "$name: asking failed: $(why)"
          ((limit == 0)) || return 1 ;;
        lost)
          ours_or_die
          [ "$state" != FAILED ] || failed=$((failed + asked))
          if ((asked && limit)) || ((failed >= attempts)); then
            complain "$name: the request ended as $state (launch/tpu.sh down $name deletes it); what Cloud says: gcloud compute tpus queued-resources describe $name ${where[*]}"
            return 1
          fi
          say "$name: $state; deleting what is left of it"
          remove || line="deleting failed: $(why)" ;;
        stopped)
          ours_or_die
          die "$name is $state: gcloud compute tpus tpu-vm start $name ${where[*]} starts it, launch/tpu.sh down $name deletes it" ;;
        waiting) [[ -z $id || $state = DELETING ]] || ours_or_die ;;
      esac
    fi
    if ((dry_run)); then
      continue
    elif [ "$line" != "$told" ] || ((SECONDS - saidat >= 600)); then
      say "$(date +%H:%M) $name: $line, waiting for $(((SECONDS - began) / 60)) min"
      told=$line saidat=$SECONDS
    fi
    if ((limit && SECONDS - began >= limit)); then
      complain "$name: still $state after $limit s; the request stays in the queue: the same command waits on, launch/tpu.sh down $name ends it"
      return 1
    fi
    sleep "$poll"
  done
}

# A command on workers ($1: a number or all), for at most $2 seconds.
on_workers() { cloud "$2" compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "${inside[@]}" --quiet "--command=$3"; }

# A subcommand of worker.sh on all workers, where there is one; $1: for at most so many seconds.
on_all() { on_workers all "$1" "test ! -e vlmjax/worker.sh || bash vlmjax/worker.sh ${*:2}"; }

# Files to a folder or name under ~/vlmjax on all workers: the last argument.
copy() { cloud 900 compute tpus tpu-vm scp "${@:1:$#-1}" "$name:vlmjax/${*: -1}" "${where[@]}" --worker=all "${inside[@]}" --quiet; }
