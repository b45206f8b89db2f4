# shellcheck shell=bash disable=SC2034
# Sourced by tpu.sh and gke.sh: what is typed behind their names, and the settings of both.

# The caller has `usage` and `top`. Ends the script at --help and at a mistake.
read_arguments() {
  local number
  script=launch/$(basename "$0")
  action=${1:-} name=''
  [[ $action != --help && $action != -h ]] || { usage; exit; }
  [[ $action =~ ^(up|run|watch|logs|stop|down)$ ]] || die "write $script up, run, watch, logs, stop or down, then a slice's name (--help says more)"
  shift
  slices=${VLMJAX_SLICES:-$top/launch/slices.conf} env_file='' dry_run=0 allow_dirty=0 timeout=3600 attempts='' worker=0 lines=100 follow=0 owned='' command=()
  while (($#)); do
    case $1 in
      --slices=*) slices=${1#*=} ;;
      --env-file=*) env_file=${1#*=} ;;
      --timeout=*) timeout=${1#*=} ;;
      --attempts=*) attempts=${1#*=} ;;
      --worker=*) worker=${1#*=} ;;
      --lines=*) lines=${1#*=} ;;
      --follow) follow=1 ;;
      --owned=*)
        owned=${1#*=}
        [[ $owned =~ ^[0-9a-f]{12}$ ]] || die "--owned: ${owned:-nothing} is no id of a slice or cluster: 12 digits of 0-9 and a-f" ;;
      --dry-run) dry_run=1 ;;
      --allow-dirty) allow_dirty=1 ;;
      --help) usage; exit ;;
      --) shift; command=("$@"); break ;;
      -*) die "no flag $1 (--help lists them; the command for the workers goes behind --)" ;;
      *) [ -z "$name" ] || die "one slice at a time: $name or $1? (the command for the workers goes behind --)"; name=$1 ;;
    esac
    shift
  done
  [ -n "$name" ] || die "which slice? $script $action NAME"
  for number in timeout attempts lines; do
    [[ $number = attempts && -z $attempts ]] || number_or_die "--$number" "${!number}"
  done
  [[ $worker =~ ^([0-9]+|all)$ ]] || die "--worker: $worker is neither a number nor all"
  poll=${VLMJAX_POLL:-30} grace=${VLMJAX_GRACE:-60}
  number_or_die VLMJAX_POLL "$poll" 0.5
  number_or_die VLMJAX_GRACE "$grace"
  kept=${VLMJAX_KEPT:-$top/runs/launch}/$name  # what `up` and `run` did, for `watch`
  last_down=$(cat "$kept/down" 2>/dev/null || true)
  exec 3>&1
  errors=$(mktemp)
  trap 'rm -f "$errors"' EXIT
  # shellcheck disable=SC2329
  if ((dry_run)); then say() { printf '# %s\n' "$*"; }; fi
}
