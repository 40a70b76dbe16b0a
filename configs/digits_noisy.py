"""Scikit-learn's digits with a fifth of the training labels wrong: a small ResNet whose labels
follow its own predictions, beside one that believes the labels.

python -m ldl_jax.main --config=configs/digits_noisy.py

`digits_noisy.py:hard` trains on the labels as they are. The figures of five such runs are recorded
in digits_noisy.json, and shown beside the run's at its end. Measured on 2 CPU cores (Python 3.11, jax
0.10.2), seeds 0 to 4, mean ± std, online against hard: accuracy 89.28 ± 1.85 and 85.28 ± 2.30 %, NLL
0.417 ± 0.027 and 0.529 ± 0.078, ECE 12.72 ± 2.07 and 5.53 ± 1.75 %; recalibrated on 157 images with
their right labels NLL 0.345 ± 0.035 and 0.529 ± 0.078 (temperature 1), ECE 5.34 ± 1.45 and 5.53 ±
1.75 %. They were compared by

for seed in 0 1 2 3 4; do for labels in hard online; do
  python -m ldl_jax.main --config=configs/digits_noisy.py:$labels --config.seed=$seed \\
    --workdir=runs/$labels-$seed
done; done
python -m ldl_jax.compare runs/hard-* runs/online-*
"""

from ldl_jax.config import choose, start

LABELS = ("online", "hard")


def get_config(labels="online"):
    """`digits_online.py` on 600 images, of which 120 have a wrong label; 157 others, with their right
    labels, for the calibrator.
    """
    config = start("digits_online.py")
    config.data.examples = 757  # the first of 1,437; 600 remain for training
    config.data.noise = 0.2
    config.labels.name = choose(labels, {name: name for name in LABELS})
    config.eval.baseline = "digits_noisy.json" if labels == "online" else ""
    config.train.epochs = 80.0
    config.train.log_every_steps = 45
    config.train.save_every_epochs = 20.0
    config.train.eval_every_epochs = 10.0
    return config
