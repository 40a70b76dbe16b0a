#!/usr/bin/env bash
# A run on all workers of a Cloud TPU slice. Each command is printed before it is executed.
#
#   launch/tpu_pod.sh [--dry-run] create | install | run ARGS... | log | stop | fetch FROM TO | delete
#
# Environment variables: NAME, ZONE, TYPE (such as v4-32) and VERSION (of the TPU software); SPOT=1 for a preemptible
# slice; NFS=HOST:/SHARE for a share that `install` mounts as /shared, because all workers must see --workdir.
# `run ARGS` starts `python -m ldl_jax.main ARGS` on every worker; `stop` makes it save and exit.
set -euo pipefail
cd "$(dirname "$0")/.."
archive=${TMPDIR:-/tmp}/ldl_jax.tar.gz

usage() {
  sed -n '2,8s/^# \{0,1\}//p' launch/tpu_pod.sh >&2
  exit 2
}

dry=""
if [ "${1:-}" = --dry-run ]; then
  dry=yes
  shift
fi
if [ "${1:-}" = create ]; then needed=(NAME ZONE TYPE VERSION); else needed=(NAME ZONE); fi
for field in "${needed[@]}"; do
  if [ -z "${!field:-}" ]; then
    echo "error: the environment variable $field is not set; this command requires ${needed[*]}" >&2
    exit 2
  fi
done

step() {
  local word line="+"
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@~-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  printf '%s\n' "$line"
  if [ -z "$dry" ]; then "$@"; fi
}
tpu() { step gcloud compute tpus tpu-vm "$1" "${@:2}" --zone="$ZONE"; }
on_all() { tpu ssh "$NAME" --worker=all --command="$1"; }

create() {
  tpu create "$NAME" --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

install() {
  step tar --exclude=./runs --exclude=./.git --exclude=./.venv -czf "$archive" .
  tpu scp "$archive" "$NAME:" --worker=all
  on_all "mkdir -p ldl_jax && tar -xzf ldl_jax.tar.gz -C ldl_jax"
  # A separate Python, because the system's may be too old for JAX.
  on_all "python3 -m pip install --user uv && ~/.local/bin/uv venv --python 3.12 --clear venv"
  on_all "cd ldl_jax && ~/.local/bin/uv pip install --python ~/venv/bin/python -e '.[tpu,stream]'"
  if [ -n "${NFS:-}" ]; then
    on_all "sudo apt-get install -y nfs-common && sudo mkdir -p /shared && sudo mount -t nfs $NFS /shared"
  fi
}

run() {
  local words
  words=$(printf ' %q' "$@")
  on_all "cd ldl_jax && { nohup ~/venv/bin/python -m ldl_jax.main$words >~/run.log 2>&1 & echo \$! >~/run.pid; }"
}

case ${1:-} in
  create | install) "$1" ;;
  run)
    if (($# < 2)); then usage; fi
    run "${@:2}"
    ;;
  log) tpu ssh "$NAME" --worker=0 --command="tail -n 100 -f run.log" ;;
  stop) on_all "kill -TERM \$(cat run.pid)" ;;
  fetch)
    if (($# != 3)); then usage; fi
    tpu scp "$NAME:$2" "$3" --recurse --worker=0
    ;;
  delete) tpu delete "$NAME" --quiet ;;
  *) usage ;;
esac
