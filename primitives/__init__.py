"""The language: ops, programs, checker, keys and their NumPy and JAX meanings.

Import from the submodules; nothing is re-exported, so that text and keys never pay for JAX.
"""
