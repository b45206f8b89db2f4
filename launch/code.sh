# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by tpu.sh and gke.sh: the code that is checked out here and the command for it, as they are kept in $kept, so that they can start again whatever happens to the checkout.

# COMMIT, or COMMIT+SUM of the changes that --allow-dirty sends along.
code_here() {
  local commit changed unknown
  commit=$(git -C "$top" rev-parse HEAD 2>/dev/null) || die "$top is not a git checkout: the workers get the code by its commit"
  [ "$(git -C "$top" rev-parse --is-shallow-repository)" = false ] || die "$top is a shallow clone, from which no other machine can check out $commit: git -C $top fetch --unshallow"
  changed=$(git -C "$top" status --porcelain | cut -c4-)
  if [ -n "$changed" ] && ((!allow_dirty)); then
    die "not committed: $(head -n 5 <<<"$changed" | paste -sd ' ')$( (($(wc -l <<<"$changed") > 5)) && echo ' …'); commit it, or give --allow-dirty"
  fi
  unknown=$(git -C "$top" ls-files --others --exclude-standard | paste -sd ' ')
  [ -z "$unknown" ] || complain "note: not sent, since git does not know it: $unknown"
  if git -C "$top" diff --quiet HEAD; then echo "$commit"; else echo "$commit+$(git -C "$top" diff --binary HEAD | sha256sum | cut -c1-10)"; fi
}

kept_code() { cat "$kept/code" 2>/dev/null || git -C "$top" rev-parse HEAD; }
kept_commit() { kept_code | cut -c1-12; }

# Keeps the code that is to be installed, and of launch/ the files that install it ($kept_files), so that `watch` installs it again whatever happens to the checkout, with the same packages.
pack() {
  local code=$1 file
  [ "$(cat "$kept/code" 2>/dev/null)" != "$code" ] || return 0
  if ((dry_run)); then
    echo "$(quoted git -C "$top" bundle create "$kept/code.bundle" HEAD) && $(quoted git -C "$top" diff --binary HEAD) >$(quoted "$kept/code.patch")" >&3
    return
  fi
  mkdir -p "$kept"
  rm -f "$kept/code" "$kept/versions.txt"
  git -C "$top" bundle create --quiet "$kept/code.bundle" HEAD
  git -C "$top" diff --binary HEAD >"$kept/code.patch"
  for file in "${kept_files[@]}"; do
    git -C "$top" show "${code%%+*}:launch/$file" >"$kept/$file"
    [ ! -s "$kept/code.patch" ] || cp "$top/launch/$file" "$kept/$file"
  done
  touch "$kept/versions.txt"
  echo "$code" >"$kept/code"
}

# Keeps the command: {bucket} filled in, nothing secret in it.
keep_command() {
  local arg
  for arg in "${command[@]}"; do
    [[ ! $arg =~ (TOKEN|SECRET|PASSWORD|API_KEY)= && ! $arg =~ hf_[A-Za-z0-9]{20} ]] ||
      die "a secret in the command would stand in logs and lists of processes: put it into a file of mode 600 and give --env-file=FILE"
    [[ $arg != *'{bucket}'* || $bucket != - ]] || die "$slices: $name: has no bucket for {bucket}"
  done
  [ -n "$env_file" ] || [ ! -e "$top/launch/secrets.env" ] || env_file=$top/launch/secrets.env
  keep_secrets
  ((!dry_run)) || return 0
  echo "exec $(quoted "${command[@]//\{bucket\}/$bucket}")" >"$kept/command"
}

# Keeps where the file with secrets lies, not what is in it.
keep_secrets() {
  local odd
  if [ -n "$env_file" ]; then
    [ -r "$env_file" ] || die "$env_file: cannot be read"
    [[ $(stat -c %a "$env_file") =~ ^[0-7]00$ ]] || die "$env_file: others may read it: chmod 600 $env_file"
    # No shell reads it: what one would take away stays in a value. Only the number is said, as the line may be the secret.
    odd=$(awk '!/^[[:space:]]*(#.*)?$/ && (!/^[A-Za-z_][A-Za-z_0-9]*=/ || /^[^=]*=["\047]/ || /\r$/) {print NR; exit}' "$env_file")
    [ -z "$odd" ] || die "$env_file: line $odd is not NAME=VALUE: write it without export, quotes around VALUE, spaces before it, or a carriage return at its end"
    env_file=$(realpath "$env_file")
  fi
  ((!dry_run)) || return 0
  mkdir -p "$kept"
  echo "$env_file" >"$kept/env_file"
}

shown_command() { if ((dry_run)); then quoted "${command[@]//\{bucket\}/$bucket}"; else sed 's/^exec //' "$kept/command"; fi; }
