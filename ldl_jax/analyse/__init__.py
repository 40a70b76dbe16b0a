"""What label distributions do to a network: one function an analysis, on arrays, and the command
`python -m ldl_jax.analyse`, which draws them for finished runs.

memory: the label memory. epochs: figures against epochs. penultimate: the embedding before the head.
agreement: between networks. mixing: along the mix of two images. `evaluation.confidence` has the
parts of the NLL and temperatures by class.
"""
