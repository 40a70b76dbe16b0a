#!/usr/bin/env bash
# One process of a run, for schedulers that restart failed jobs: launch/attempt.sh --config=FILE --workdir=DIR [...]
#
# Exit status 75: the run was stopped by SIGTERM before its end; the same command resumes it. Otherwise the status of
# ldl_jax.main: 0 success, 1 failure, 2 invalid input, 3 other processes did not join or were lost, 130 Ctrl-C.
set -euo pipefail

workdir=""
for word in "$@"; do
  case $word in --workdir=*) workdir=${word#--workdir=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "error: launch/attempt.sh requires --workdir=DIR, a folder shared by all processes" >&2
  exit 2
fi

"${PYTHON:-python}" -m ldl_jax.main "$@" &
pid=$! stops=0
trap 'stops=$((stops + 1)); kill -TERM "$pid" 2>/dev/null || true' TERM INT
# A trapped signal ends `wait`, not the process: wait again until no new signal has arrived.
before=-1
while [ "$before" != "$stops" ]; do
  before=$stops code=0
  wait "$pid" || code=$?
done
# 143: SIGTERM came before the first step, when there was nothing to save.
if ((stops && code == 143)); then exit 75; fi
if [ "$code" != 0 ]; then exit "$code"; fi
finished() { [ -f "$workdir/model.npz" ] && [ -f "$workdir/summary.json" ]; }
# Process 0 writes the weights and, last, the summary; on a shared folder, other machines may see them a little later.
for ((second = 0; second < ${PATIENCE:-10}; second++)); do
  if finished; then exit 0; fi
  if ((stops)); then break; fi
  sleep 1
done
if finished; then exit 0; fi
exit 75
