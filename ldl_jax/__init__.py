"""Label distribution learning in JAX: train image classifiers with calibrated confidence."""


def __getattr__(name):
    # Loaded on first use: `import ldl_jax` must not import JAX.
    if name == "load":
        from ldl_jax.evaluation.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
