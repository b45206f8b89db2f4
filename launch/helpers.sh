# shellcheck shell=bash disable=SC2034
# Sourced by local.sh, tpu.sh and gke.sh: messages, quoting, exit statuses.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 501)); then
  echo "${0##*/}: needs bash 5.1 or newer, this is $BASH_VERSION" >&2
  exit 2
fi

say() { printf '%s\n' "$*"; }

complain() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# A mistake of the user: one line, status 2.
die() { complain "$*"; exit 2; }

# Of $1 the value is $2: a whole number (08 would be octal), or like the example $3.
number_or_die() { [[ $2 =~ ^(0|[1-9][0-9]*)$ || (-n ${3:-} && $2 =~ ^[0-9]*\.?[0-9]+$) ]] || die "$1: $2 is not a number such as ${3:-60}"; }

# The arguments as one line that can be pasted into a shell.
quoted() {
  local arg out=''
  for arg; do
    if [[ $arg =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then out+=" $arg"; else out+=" ${arg@Q}"; fi
  done
  printf '%s' "${out# }"
}

# The statuses, as a pattern, of a command that no further start can help: vlmjax's own of a mistake of the user, and bash's of a program that cannot be run or is not there.
mistakes='^(2|126|127)$'

# What an exit status says: "ended with exit status 1", "was killed by SIGKILL". With 143 also those end that SIGTERM let save.
ending() {
  local name
  if [ "$1" = 143 ]; then
    echo "ended after SIGTERM (143)"
  elif [[ $1 =~ ^[0-9]+$ ]] && (($1 > 128)) && name=$(kill -l "$(($1 - 128))" 2>/dev/null); then
    echo "was killed by SIG${name#SIG}"
  else
    echo "ended with exit status $1"
  fi
}
