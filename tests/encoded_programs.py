"""Programs in which slots, copies, scalars and pairs of operations meet in every way, for tests of the encoding."""

HAND_MADE = {
    "slots swapped": "def train(g, m, v, lr):\n    x = m\n    m = v\n    v = x + g\n    return lr * m, m, v\n",
    "slots rotated": (
        "def train(g, a, b, c):\n    x = a\n    a = b\n    b = c\n    c = x + g\n    return a + 2 * b, a, b, c\n"
    ),
    "slot copied": "def train(g, m, v):\n    v = m\n    m = m + g\n    return v * m, m, v\n",
    "slots shifted": "def train(g, a, b, c):\n    c = b\n    b = a\n    a = g\n    return c + b, a, b, c\n",
    "slot = g": "def train(g, m):\n    x = g - m\n    m = g\n    return x, m\n",
    "slot = w": "def train(w, g, m):\n    x = w - m\n    m = w\n    return x * g, m\n",
    "slot = lr": "def train(g, lr, m):\n    x = m * g\n    m = lr\n    return x, m\n",
    "slot = constant": "def train(g, m):\n    x = m * g\n    m = 0.5\n    return x, m\n",
    "two slots, one value": "def train(g, m, v):\n    x = m - v + g\n    m = x\n    v = x\n    return x, m, v\n",
    "update = slot": "def train(g, m):\n    x = m\n    m = m + g\n    return x, m\n",
    "update = slot overwritten": "def train(g, m, v):\n    x = m\n    m = v + g\n    v = x\n    return x, m, v\n",
    "update = g": "def train(g):\n    return g\n",
    "update = w": "def train(w):\n    return w\n",
    "update = constant": "def train():\n    return 0.25\n",
    "update = negative zero": "def train():\n    return -0.0\n",
    "update = hyperparameter": "def train(*, a=0.5):\n    return a\n",
    "update = lr": "def train(lr):\n    return lr\n",
    "update = w0": "def train(w0):\n    return w0\n",
    "update = loss": "def train(loss):\n    return loss\n",
    "update = noise": "def train(noise):\n    return noise\n",
    "scalar slot": "def train(g, t, n: scalar):\n    n = n + 1 / t\n    return g / n, n\n",
    "scalar slot of a norm": "def train(g, n: scalar):\n    n = max(n, global_norm(g))\n    return g / n, n\n",
    "leaf slot": "def train(g, n: leaf):\n    n = interp(norm(g), n, 0.9)\n    return g / (n + 1), n\n",
    "leaf slot of a scalar": "def train(g, lr, n: leaf):\n    n = n + lr\n    return g * n, n\n",
    "tensor slot of a leaf": "def train(g, m):\n    m = m + norm(g)\n    return g / m, m\n",
    "all inputs": (
        "def train(w, g, w0, noise, lr, t, horizon, loss, m):\n"
        "    m = m + noise * loss\n    return lr * (w - w0) * (t / horizon) + m * g, m\n"
    ),
    "constants like numbers of statements": (
        "def train(g):\n    a = cos(g)\n    b = a * 1.0\n    c = b + 0.0\n    d = max(c, -0.0)\n    return d * 2.0\n"
    ),
    "zeros of both signs": "def train(g):\n    a = g / 0.0\n    b = g / -0.0\n    return max(a, b)\n",
    "hoisted, then rebound": "def train(g, lr, *, b=0.5):\n    x = b * lr\n    b = x + g\n    return b * x\n",
    "a scalar of a reduction is not hoisted": "def train(g, lr):\n    x = lr * dot(g, g)\n    return x * g\n",
    "inner value used twice": "def train(w, g):\n    x = w * g\n    return x + x\n",
    "inner value used again": "def train(w, g, m):\n    m = w * g\n    return m + g, m\n",
    "inner value in two places": "def train(w, g):\n    x = square(g)\n    y = x + w\n    return y * x\n",
    "product minus": "def train(w, g):\n    return w * g - g\n",
    "pairs in a chain": "def train(w, g, lr):\n    return lr * sign((w * g + g) * w + square(g)) - w * g\n",
    "clip by a scheduled scalar": "def train(g, t):\n    return clip(g, 1 / t)\n",
}


def chain(length: int) -> str:
    return "\n".join(["def train(g):", "    x = cos(g)", *["    x = cos(x)"] * (length - 1), "    return x"])


def scalars(count: int) -> str:
    return "\n".join(["def train(g):", *[f"    g = max(g, {i}.5)" for i in range(count)], "    return g"])


def values_alive(count: int) -> str:
    made = [f"    x{i} = cos({f'x{i - 1}' if i else 'g'})" for i in range(count)]
    return "\n".join(["def train(g):", *made, *[f"    x0 = max(x0, x{i})" for i in range(1, count)], "    return x0"])


def slots(count: int) -> str:
    names = [f"m{i}" for i in range(count)]
    body = [f"    {name} = {name} + {before}" for before, name in zip(["g", *names], names, strict=False)]
    return "\n".join([f"def train(g, {', '.join(names)}):", *body, f"    return {names[-1]}, {', '.join(names)}"])
