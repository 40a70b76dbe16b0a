"""Label distribution learning in JAX."""
