"""Eight fake devices, float64 and quick compilation, set before jax is loaded; one run shares its
compiled programs.
"""

import os
import shutil
import tempfile
from importlib.metadata import version

# Most of the time goes into compiling: these make it short and the programs slow. Versions after
# 0.10 lack the last.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "")
)
os.environ["JAX_PLATFORMS"] = "cpu"
# no stack in programs: a tenth of the time of compiling
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest
from own_modules import save  # noqa: F401 (a fixture)

jax.config.update("jax_enable_x64", True)

# A folder made anew by each run of the tests, so that nothing comes from an earlier one, unless
# LDL_TEST_PROGRAMS names one that several runs share. Workers and the processes that tests start
# inherit it.
OWNER = "LDL_TEST_PROGRAMS" not in os.environ
PROGRAMS = os.environ.setdefault(
    "LDL_TEST_PROGRAMS", tempfile.mkdtemp(prefix="ldl_jax-tests-") if OWNER else ""
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# The modules that runs of the tests name are remembered here, not in the user's own store.
STATE_OWNER = "LDL_TEST_STATE" not in os.environ
STATE = os.environ.setdefault(
    "LDL_TEST_STATE", tempfile.mkdtemp(prefix="ldl_jax-state-") if STATE_OWNER else ""
)
os.environ["XDG_STATE_HOME"] = STATE

LONGEST = (
    "test_resume.py",
    "test_train.py",
    "test_steps.py",
    "test_replay.py",
    "test_convert.py",
    "test_networks.py",
)


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that no worker is left with one when the others
    are done.
    """
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        )
    )
    for item in items:
        if item.get_closest_marker("slow") and item.get_closest_marker("nightly"):
            raise pytest.UsageError(
                f"{item.nodeid} is marked slow and nightly; allowed is one of them"
            )


def pytest_unconfigure():
    """Remove the folders when the run is over, not when one of its workers is."""
    if OWNER:
        shutil.rmtree(PROGRAMS, ignore_errors=True)
    if STATE_OWNER:
        shutil.rmtree(STATE, ignore_errors=True)
