"""Dense layers."""

import flax.linen as nn
import jax

from evolion.proxies.models.parts import ACTIVATIONS


class Perceptron(nn.Module):
    """`depth` dense layers of `width` with an activation after each, then one of `outputs`, on flattened inputs."""

    width: int
    depth: int
    outputs: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Outputs (examples, outputs) of inputs (examples, …)."""
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = ACTIVATIONS[self.activation](nn.Dense(self.width)(x))
        return nn.Dense(self.outputs)(x)
