#!/usr/bin/env bash
# The main path on an embedded sample, as `make demo` runs it: text -> tokenizer -> blocks -> model, all in MLflow.
# Every step can be interrupted and run again: preprocessing and training go on where they stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=recipes/pretrain/demo.yaml
step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

step pmlm tokenizer --config "$recipe"
step pmlm preprocess --config "$recipe"
step pmlm pretrain --config "$recipe"
step pmlm fill --model outputs/demo/pretrain/final "The old [MASK] went into the house and closed the door."

cat <<'TEXT'

Done. What was made lies in outputs/demo. Look at the run:
  .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db     (then open http://127.0.0.1:5000)
The same commands with recipes/pretrain/mini.yaml ... base.yaml train larger models on your own text; see docs/tutorial.md.
TEXT
