#!/usr/bin/env bash
# Wheels of what measuring needs and a machine with torch, torchvision, pandas, seaborn and scikit-learn may lack, in the
# versions of uv.lock: for a GPU machine without a package index (docs/how-to/first_gpu_run.md). All are pure Python.
#   scripts/wheels.sh FOLDER
set -euo pipefail
folder=${1:?usage: scripts/wheels.sh FOLDER}
cd "$(dirname "$0")/.."
needed='^(antlr4-python3-runtime|hydra-core|nvidia-ml-py|omegaconf|rich|markdown-it-py|mdurl|pygments)=='
.venv/bin/uv export --frozen --no-hashes --no-dev --no-emit-project --quiet |
    grep -E "$needed" | cut -d ' ' -f 1 > "${TMPDIR:-/tmp}/wheels.$$"
trap 'rm -f "${TMPDIR:-/tmp}/wheels.$$"' EXIT
# Not pip download: antlr4-python3-runtime is published as source only.
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --wheel-dir "$folder" --requirement "${TMPDIR:-/tmp}/wheels.$$"
ls "$folder"
