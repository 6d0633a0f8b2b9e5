"""The tasks as data, one module for each kind of model: `SPECS`, plain dataclasses that load neither jax nor data."""
