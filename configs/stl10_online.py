"""Online label distributions on STL-10: the label mixed with the network's own prediction one epoch
ago (PS-KD).

python -m ldl_jax.main --config=configs/stl10_online.py --config.data.root=DATA

The memory has 5,000 rows. Not measured here.
"""

from ldl_jax.config import start


def get_config(schedule="short"):
    """`stl10_hard.py` with these changes."""
    config = start("stl10_hard.py", schedule)
    config.labels.name = "online"
    config.labels.online.alpha = 0.8  # PS-KD
    return config
