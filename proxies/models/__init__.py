"""Flax models of the tasks. `TaskSpec.model` names a class here as "module.Class"."""
