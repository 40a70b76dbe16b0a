#!/usr/bin/env bash
# The small tier: ResNet-8 on the first 10,000 training images of CIFAR-10, 5 epochs, five label sources, one seed.
# It shows that everything runs end to end, and no more: five epochs are far from what the methods are made for.
#   bash docs/results/small_tier.sh DATA OUT      DATA holds cifar-10-batches-bin or another form of CIFAR-10
set -euo pipefail
data=$1 out=$2
mkdir -p "$out"
common=(
  --config.data.root="$data" --config.data.verify=False --config.data.examples=10000
  --config.train.epochs=5.0 --config.train.eval_every_epochs=1.0 --config.optimizer.boundaries="(3.0,4.0)"
)

run() { # name, config, further flags: one run on the core that the caller is bound to
  local name=$1 config=$2
  shift 2
  python -m ldl_jax.main --config="configs/$config.py" "${common[@]}" --workdir="$out/$name" "$@" >"$out/$name.log" 2>&1
}
small=(--config.model.cifar_resnet.depth=8)
export -f run
(
  taskset -cp 0 "$BASHPID" >/dev/null
  run teacher cifar10_hard --config.seed=100
  run ldl_mix cifar10_ldl_mix "${small[@]}" --config.teachers="('$out/teacher',)"
) &
(
  taskset -cp 1 "$BASHPID" >/dev/null
  for method in hard smooth online classwise; do run "$method" "cifar10_$method" "${small[@]}"; done
) &
wait
