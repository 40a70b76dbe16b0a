"""What has to be set before the first use of a device."""

import os

import jax
from ml_collections import ConfigDict

from ldl_jax import files, mesh

COMPILE_SECONDS = 0.5  # programs that compile faster are not kept


def prepare(c: ConfigDict, seconds: int | None = None) -> None:
    """Set XLA's flags and the cache of compiled programs, and join the processes of the job in
    `seconds`.

    None: there are no others. Raises mesh.NotJoined where not all of them come.
    """
    if c.train.deterministic:
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
        )
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(files.cache_folder("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", COMPILE_SECONDS)
    if seconds is not None:
        mesh.join(seconds)
