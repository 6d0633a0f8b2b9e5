"""Recurrent networks: gated recurrent units."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from evolion.proxies.models.parts import ACTIVATIONS, one_hot_embedding


class Gates(nn.Module):
    """The weights of a recurrence, for use within a loop: kernel (width, features) and bias (features,)."""

    width: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """Kernel and bias."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.width, self.features))
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.features,))


class Gru(nn.Module):
    """A layer of gated recurrent units (Cho et al., arXiv:1406.1078), the reset gate behind the product.

        r, z = sigmoid(x W_rz + h U_rz + b_rz)
        n = activation(x W_n + b_n + r * (h U_n + c_n))
        h <- n + z * (h - n)

    The products with the inputs are one for all positions; a step of the loop has one more for all three gates.
    """

    width: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The states (sequences, positions, width) after each position of (sequences, positions, features)."""
        kernel, bias = Gates(self.width, 3 * self.width)()
        seen = jnp.swapaxes(nn.Dense(3 * self.width)(x), 0, 1)

        def step(state: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
            reset, update, candidate = jnp.split(inputs, 3, axis=-1)
            old_reset, old_update, old_candidate = jnp.split(state @ kernel + bias.reshape(1, -1), 3, axis=-1)
            reset, update = nn.sigmoid(reset + old_reset), nn.sigmoid(update + old_update)
            candidate = ACTIVATIONS[self.activation](candidate + reset * old_candidate)
            state = candidate + update * (state - candidate)
            return state, state

        _, states = jax.lax.scan(step, jnp.zeros((x.shape[0], self.width), x.dtype), seen)
        return jnp.swapaxes(states, 0, 1)


class GruClassifier(nn.Module):
    """`depth` layers of gated recurrent units over a sequence of vectors, then one dense of the last state."""

    width: int
    depth: int
    outputs: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits (sequences, outputs) of vectors (sequences, positions, features)."""
        for _ in range(self.depth):
            x = Gru(self.width, self.activation)(x)
        return nn.Dense(self.outputs)(x[:, -1])


class GruLanguageModel(nn.Module):
    """A learned embedding of tokens, `depth` layers of gated recurrent units, one dense."""

    width: int
    depth: int
    vocabulary: int
    activation: str = "tanh"

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Logits (sequences, positions, vocabulary) of tokens (sequences, positions)."""
        embedding = self.param("token_embedding", nn.initializers.normal(1.0), (self.vocabulary, self.width))
        x = one_hot_embedding(tokens, embedding)
        for _ in range(self.depth):
            x = Gru(self.width, self.activation)(x)
        return nn.Dense(self.vocabulary)(x)
