"""Settings that must be made before the first use of a device."""

import os

import jax
from ml_collections import ConfigDict

from ldl_jax import files, mesh

COMPILE_SECONDS = 0.5  # programs that compile faster are not cached


def prepare(c: ConfigDict, seconds: int | None = None) -> None:
    """Set XLA's flags and the compilation cache, and join the other processes of the job.

    seconds: time to wait for the other processes; None if this is the only one. Raises
    mesh.NotJoined if not all processes join in time.
    """
    # XLA reads its flags once, when the backend starts.
    if c.train.deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = flags + " --xla_gpu_deterministic_ops=true"
    # A cache that the user has configured stays in use.
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(files.cache_folder("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", COMPILE_SECONDS)
    if seconds is not None:
        mesh.join(seconds)
