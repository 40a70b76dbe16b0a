"""Label distribution learning in JAX: image classifiers whose confidence can be trusted."""


def __getattr__(name):
    if name == "load":  # on demand, so that `import ldl_jax` costs nothing
        from ldl_jax.evaluation.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
