#!/usr/bin/env bash
# The whole way on an embedded sample, as `make demo` runs it: text -> tokenizer -> blocks -> model -> sweeps -> comparison.
# Every step can be interrupted and run again: preprocessing, training and sweeps go on where they stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=recipes/pretrain/demo.yaml
step() { # shown so that it can be pasted
  printf '\n\033[1m$'
  for word in "$@"; do case $word in *[!A-Za-z0-9_./-]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done
  printf '\033[0m\n'
  "$@"
}

step pmlm tokenizer --config "$recipe"
step pmlm preprocess --config "$recipe"
step pmlm pretrain --config "$recipe"
step pmlm fill --model outputs/demo/pretrain/final "The old [MASK] went into the house and closed the door."
step pmlm sweep --config recipes/sweep/demo.yaml
step pmlm compare --sweep demo --output_dir outputs/demo/compare

cat <<'TEXT'

Done. A minute of training on a few books is too little to learn these tasks: it shows the way, not the scores (docs/results.md has runs that learn).
What was made lies in outputs/demo. Look at it:
  outputs/demo/compare/index.html                                 (the comparison, in any browser)
  .venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db     (every run; then open http://127.0.0.1:5000)
`. .venv/bin/activate` puts pmlm on your path; the same commands with recipes/pretrain/mini.yaml ... base.yaml train larger models on your own text; see docs/tutorial.md.
TEXT
