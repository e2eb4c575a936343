#!/usr/bin/env bash
# What a GPU runner does each night; without a GPU, the same with a small sweep. docs/how-to/nightly.md describes the steps.
#
#   make nightly
#   BASE=v1.2 NIGHTS=/data/nights MLFLOW_TRACKING_URI=http://mlflow:5000 scripts/nightly.sh
#
# BASE is the revision to compare step times with; default: that of the last night here whose time gate gave a verdict,
# else HEAD~1. Each night has a folder NIGHTS/DATE_TIME with sweep/, exact/, logs/ and summary.md.
#
# Exit code: 0 if nothing is worse; 1 if a check failed or a regression was found; 2 if a step could not run or the
# machine is not fit; 130 if interrupted. A step that fails does not stop the next ones.
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
nights=${NIGHTS:-results/runs/nightly}
mkdir -p "$nights" || exit 2
night=$nights/$(date +%Y-%m-%d_%H-%M-%S)
if [ -e "$night" ]; then # of another night that began in this second
    sleep 1
    night=$nights/$(date +%Y-%m-%d_%H-%M-%S)
fi
mkdir "$night" "$night/logs" || exit 2
trap 'touch "$night/logs/interrupted"' INT TERM HUP

# step NAME COMMAND...: keeps what the command prints in logs/NAME.log, and its exit code and seconds in logs/NAME.code.
step() {
    local log=$night/logs/$1.log code begin=$SECONDS
    shift
    [ ! -e "$night/logs/interrupted" ] || return
    printf '$ %s\n' "${*//$python/python}" | tee "$log"
    "$@" 2>&1 | tee -ia "$log"
    code=${PIPESTATUS[0]}
    [ ! -e "$night/logs/interrupted" ] || return
    echo "$code $((SECONDS - begin))" > "${log%.log}.code"
    return "$code"
}

# skip NAME REASON
skip() {
    [ -e "$night/logs/interrupted" ] || echo "$2" > "$night/logs/$1.skipped"
}

measure() {
    local gpus sweep timed head judged base=${BASE:-} previous=''
    head=$(git rev-parse HEAD) && echo "$head" > "$night/commit"
    gpus=$("$python" -m bench.preflight --gpus)
    for file in "$nights"/*/sweep/records/*.json; do [ ! -e "$file" ] || previous=${file%/records/*}; done
    for file in "$nights"/*/judged; do
        judged=$(git rev-parse -q --verify "$(cat "$file" 2> /dev/null)^{commit}") && base=${BASE:-$judged}
    done
    base=${base:-HEAD~1}
    echo "$base" > "$night/base"
    if [ "$gpus" -gt 0 ]; then
        sweep="gpus=$(printf '%s\n' 1 $((gpus < 2 ? gpus : 2)) "$gpus" | sort -nu | paste -sd,)"
        timed="workload=vit_b_16 stage=0,1,2,3 precision=amp_bf16 steps=20 warmup=5 gpus=$gpus"
    else # Does everything work, in minutes.
        sweep="engine=native workload=digits stage=0,3 gpus=1,2 precision=fp32 steps=5 warmup=1 repeats=2"
        timed="workload=digits stage=0,3 gpus=2 steps=5 warmup=1 repeats=10"
    fi

    # shellcheck disable=SC2086 # the settings are words
    step sweep "$python" -m bench experiment=nightly $sweep tracking=none "hydra.sweep.dir=$night/sweep"

    step exact-sweep "$python" -m bench experiment=exact "hydra.sweep.dir=$night/exact"
    step exact-gate "$python" -m analysis gate "$night/exact" --baseline results/reference/cpu-gloo/exact.json

    if [ "$head" = "$(git rev-parse -q --verify "$base^{commit}")" ] && [ -z "$(git status --porcelain)" ]; then
        skip time-gate "the code is that of $base"
    else
        # shellcheck disable=SC2086
        step time-gate "$python" -m bench.regress --base "$base" $timed
    fi

    if [ -n "$previous" ]; then
        step last-night "$python" -m analysis compare "$previous" "$night/sweep"
    else
        skip last-night "no earlier night here"
    fi

    step hot-paths "$python" -m pytest benchmarks --benchmark-only --benchmark-autosave \
        "--benchmark-storage=$(realpath "$nights")/hot-paths" --benchmark-columns=min,median,rounds
    step hot-paths-compared "$python" -m benchmarks.against_earlier "$nights/hot-paths"

    if [ "${WEEKDAY:-$(date +%u)}" = 7 ]; then
        step claims "$python" -m claims --check --folder "$night/claims"
    else
        skip claims "weekly, on Sundays"
    fi

    step mlflow "$python" -m bench.tracking import "$night/sweep"
}

step preflight "$python" -m bench.preflight --place "$night" && measure
"$python" -m bench.nightly.summary "$night"
