"""Label distributions of a teacher read from a file, on CIFAR-100: as cifar100_ldl.py, without the
teacher's passes.

python -m ldl_jax.store runs/cifar100_hard-seed100 --views=20 --topk=10 --dtype=uint8 --out=stored.npz
python -m ldl_jax.main --config=configs/cifar100_stored.py --config.data.root=DATA \\
  --config.data.train_store=stored.npz

As in FKD (Shen and Xing 2022), each epoch repeats one of the stored views. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`cifar100_hard.py` with these changes."""
    config = start("cifar100_hard.py", schedule)
    config.labels.name = "stored"
    return config
