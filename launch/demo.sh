#!/usr/bin/env bash
# The main job on a fresh machine: sets up .venv, trains the demo in four stages, evaluates it and writes its report.
# Run it again: it resumes, or finishes at once. Arguments are passed on to `vlmjax train`.
set -euo pipefail
# shellcheck source=launch/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
echo "plan: set up → build easy-VQA (5,000 images, 48,248 questions) → train 4 stages and evaluate (about 5 min on 2 idle CPU cores) → runs/demo/report.html"
set_up demo
vlmjax data build easy_vqa
vlmjax train --config=experiments/demo.py --workdir=runs/demo "$@"
cat <<'TEXT'

what to try next:
  open runs/demo/report.html                            curves, the freeze proof, right and wrong answers
  vlmjax evaluate --model=runs/demo --tasks=easy_vqa    score it again
  vlmjax train --config=experiments/demo.py --workdir=runs/linear --config.model.projector.variant=linear
TEXT
