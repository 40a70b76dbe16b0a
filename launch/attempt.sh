#!/usr/bin/env bash
# One process of a run, for schedulers that start again what failed: launch/attempt.sh --config=FILE --workdir=DIR [...]
#
# Status 75 where the run saved and left before its end (SIGTERM): the same command goes on. Otherwise that of the
# command: 0 done, 1 failed, 2 the input is not right, 3 other processes did not come, or went.
set -euo pipefail

workdir=""
for word in "$@"; do
  case $word in --workdir=*) workdir=${word#--workdir=} ;; esac
done
if [ -z "$workdir" ]; then
  echo "error: launch/attempt.sh needs --workdir=DIR, a folder that all processes share" >&2
  exit 2
fi

"${PYTHON:-python}" -m ldl_jax.main "$@" &
pid=$! stops=0
trap 'stops=$((stops + 1)); kill -TERM "$pid" 2>/dev/null || true' TERM INT
seen=-1
while [ "$seen" != "$stops" ]; do # a signal ends the waiting, not the process
  seen=$stops code=0
  wait "$pid" || code=$?
done
if [ "$code" != 0 ]; then exit "$code"; fi
# The weights come last, from process 0; on a shared folder the others may see them a little later.
for ((second = 0; second < ${PATIENCE:-10}; second++)); do
  if [ -f "$workdir/model.npz" ]; then exit 0; fi
  if ((stops)); then break; fi
  sleep 1
done
if [ -f "$workdir/model.npz" ]; then exit 0; fi
exit 75
