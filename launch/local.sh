#!/usr/bin/env bash
# One run by several processes on this machine: launch/local.sh N --config=FILE --workdir=DIR [...]
#
# The processes share the GPUs in CUDA_VISIBLE_DEVICES (default: all). LOCAL_DEVICES=D: use D CPU devices per process
# instead. Process 0 prints to the terminal, the others to $LOGS/process-<n>.log (default: a temporary folder). SIGTERM
# and SIGINT are passed on to all. If one process fails, the others have GRACE seconds (default: 30) to finish.
set -euo pipefail
set -m # process groups of their own, so that Ctrl-C reaches this script only, which passes it on once

count=${1:-}
if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
  echo "error: launch/local.sh N --config=FILE ...: N must be a number of processes of at least 1, got '$count'" >&2
  exit 2
fi
shift
python=${PYTHON:-python} grace=${GRACE:-30}
logs=${LOGS:-$(mktemp -d -t ldl_jax.XXXXXX)}
mkdir -p "$logs"

gpus=()
if [ -n "${LOCAL_DEVICES:-}" ]; then
  export JAX_PLATFORMS=cpu
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$LOCAL_DEVICES"
elif [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi >/dev/null; then
  mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader)
fi
if ((${#gpus[@]} % count)); then
  echo "error: $count processes cannot share ${#gpus[@]} GPUs evenly; select GPUs with CUDA_VISIBLE_DEVICES" >&2
  exit 2
fi
share=$((${#gpus[@]} / count))

free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
JAX_COORDINATOR_ADDRESS="127.0.0.1:$("$python" -c "$free_port")"
export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$count

declare -A number=() # process id -> process number, of the running processes
start() {
  export JAX_PROCESS_ID=$1
  if ((share)); then
    local mine=("${gpus[@]:$1*share:share}")
    CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${mine[*]}")
    export CUDA_VISIBLE_DEVICES
  fi
  if (($1)); then
    "$python" -m ldl_jax.main "${@:2}" </dev/null >"$logs/process-$1.log" 2>&1 &
  else
    "$python" -m ldl_jax.main "${@:2}" </dev/null &
  fi
  number[$!]=$1
}

# shellcheck disable=SC2329 # called by the traps
pass_on() {
  for pid in "${!number[@]}"; do kill "-$1" "$pid" 2>/dev/null || true; done
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

for ((n = 0; n < count; n++)); do start "$n" "$@"; done

status=0 until=""
while ((${#number[@]})); do
  for pid in "${!number[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then continue; fi
    code=0 who=${number[$pid]}
    wait "$pid" || code=$?
    unset "number[$pid]"
    if ((code == 0 || status)); then continue; fi
    status=$code until=$((SECONDS + grace))
    log=""
    if ((who)); then log="; see $logs/process-$who.log"; fi
    echo "error: process $who of $count exited with status $code$log; the others have $grace seconds to finish" >&2
  done
  if [ -n "$until" ] && ((SECONDS > until)); then
    for pid in "${!number[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  fi
  sleep 0.2
done
exit "$status"
