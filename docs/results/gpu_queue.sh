#!/usr/bin/env bash
# What is still to be measured on a GPU, most valuable first.
#   bash docs/results/gpu_queue.sh                      lists the jobs
#   bash docs/results/gpu_queue.sh JOB DATA OUT         does one
#
# DATA holds CIFAR-100 (any copy). A run in OUT that was interrupted goes on, and one that has finished is not trained
# again, so that a job may be done in pieces. Minutes are estimates for one H200 from the rates in gpu.md: runs side by
# side through NVIDIA's MPS together do about 1,000 steps/s of a ResNet-20 at batch 64, whose 240 epochs are 187,440
# steps. Figures go to docs/results with the card, the versions and the number of seeds.
set -euo pipefail

jobs_list="\
hard            ResNet-20 on CIFAR-100, 240 epochs, hard labels, seeds 0 to 2          10 min   published ECE .070
smooth          the same with label smoothing                                          10 min   published ECE .053
teacher         the teacher of the paper, a ResNet-110, seed 100                       45 min   in pieces
ldl_mix         its distributions on images mixed by CutMix, seeds 0 to 2              25 min   published ECE .063
online          labels from the network's own predictions, seeds 0 to 2                10 min   none published
kd              distillation at T = 4, seeds 0 to 2                                    25 min   none published for this weight
resnet50        a ResNet-50 step at 224 pixels, bfloat16, beside PyTorch's              3 min
resnet18        a CIFAR ResNet-18 step, bfloat16, beside what the toolkit adds          2 min
deterministic   a run that is interrupted and resumed, compared bit by bit              2 min"

if [ $# -ne 3 ]; then
  printf '%s\n' "$jobs_list"
  [ $# -eq 0 ]
  exit
fi
job=$1 data=$2 out=$3
grep -qE "^$job " <<<"$jobs_list" || { echo "JOB must be one of those listed without arguments, got $job" >&2; exit 2; }
mkdir -p "$out"

# train NAME CONFIG [FLAGS ...]: one run, started by `before`; its output goes to OUT/NAME.log
before=()
train() {
  local name=$1 config=$2
  shift 2
  "${before[@]}" python -m ldl_jax.main --config="configs/$config.py" --config.data.root="$data" --config.data.verify=False \
    --config.train.chunk_steps=71 --config.train.save_every_epochs=10 --config.train.eval_every_epochs=40 \
    --config.train.log_every_steps=781 --workdir="$out/$name" "$@" >"$out/$name.log" 2>&1
}

# three CONFIG [FLAGS ...]: seeds 0 to 2 side by side
three() {
  local config=$1 seed waiting=()
  shift
  export XLA_PYTHON_CLIENT_MEM_FRACTION=.25
  nvidia-cuda-mps-control -d || true # it runs already
  for seed in 0 1 2; do
    train "$config-$seed" "$config" --config.seed="$seed" "$@" &
    waiting+=($!)
  done
  for seed in 0 1 2; do
    wait "${waiting[$seed]}" || { echo "seed $seed failed: see $out/$config-$seed.log" >&2; exit 1; }
  done
}

teacher="$out/teacher"
case $job in
  hard | smooth | online) three "cifar100_$job" ;;
  ldl_mix | kd) three "cifar100_$job" --config.teachers="('$teacher',)" ;;
  teacher) train teacher cifar100_hard --config.model.cifar_resnet.depth=110 --config.seed=100 ;;
  resnet50) python -m ldl_jax.bench step --model=resnet50 --synthetic --batch=256 --dtype=bfloat16 --torch | tee "$out/resnet50.txt" ;;
  resnet18) python -m ldl_jax.bench step --model=resnet18 --set=cifar100 --batch=512 --dtype=bfloat16 | tee "$out/resnet18.txt" ;;
  deterministic)
    short=(--config.train.deterministic=True --config.train.epochs=4 "--config.optimizer.boundaries=(2.,3.)")
    train calm cifar100_hard "${short[@]}"
    # SIGTERM saves the run; that `timeout` had to send it is its status 124.
    before=(timeout --signal=TERM 25)
    train broken cifar100_hard "${short[@]}" || [ $? = 124 ]
    before=()
    train broken cifar100_hard "${short[@]}"
    python - "$out" <<'PYTHON'
import sys
import numpy as np

with np.load(f"{sys.argv[1]}/calm/model.npz") as calm, np.load(f"{sys.argv[1]}/broken/model.npz") as broken:
    same = all(np.array_equal(calm[name], broken[name]) for name in calm.files)
print("bitwise the same" if same else "not the same")
PYTHON
    ;;
esac
