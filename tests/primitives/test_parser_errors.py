import pytest

from evolion.primitives.parser import MAXIMUM_CHARACTERS, parse
from evolion.primitives.program import MAXIMUM_STATEMENTS, ProgramError

HEAD = "def train(w, g, m, lr, *, b=0.9):\n"
TAIL = "    return w, m\n"


def inside(line: str) -> str:
    """A text whose second line is this statement."""
    return f"{HEAD}    {line}\n{TAIL}"


def signature(parameters: str) -> str:
    return f"def train({parameters}):\n    return w\n"


ONLY_NUMBERS = "only names, numbers, + - * / ** and function calls are allowed here"
ONE_NAME = "assign one value to one name"
ONLY_TRAIN = "only `def train(...):` may stand here"
ONLY_ASSIGNMENTS = "only assignments and a final return"
FINITE = "a constant must be a finite number"

BAD: dict[str, tuple[str, int, int, str]] = {
    # The list that every front end must answer with one clear line.
    "unknown op": (inside("x = sqr(g)"), 2, 9, "unknown function 'sqr'; did you mean 'sqrt'?"),
    "far op": (inside("x = relu6(g)"), 2, 9, "`evolion ops` lists the functions"),
    "unbound name": (inside("x = g + v"), 2, 9, "name 'v' is not bound here"),
    "missing input": (inside("x = g * horizon"), 2, 9, "it is a reserved input: add it to the parameters"),
    "wrong arity": (inside("x = sqrt(g, w)"), 2, 9, "'sqrt' takes 1 argument, got 2"),
    "no argument": (inside("x = w + interp()"), 2, 13, "'interp' takes 3 arguments, got 0"),
    "wrong kind": (inside("x = dot(g, lr)"), 2, 9, "argument 2 of 'dot' must be a tensor, but lr is a scalar"),
    "wrong kinds": (
        inside("x = norm(lr)"),
        2,
        9,
        "must be a row or column or tensor or left or right, but lr is a scalar",
    ),
    "matrix and tensor": (inside("x = left_gram(g) + w"), 2, 9, "'add' do not go together: x1 (left), w (tensor)"),
    "sides of a product": (inside("x = matmul(w, g)"), 2, 9, "with a tensor first it takes tensor, right"),
    "missing return": (HEAD + "    x = g\n", 2, 5, "must end with `return update`"),
    "import": ("import os\n" + inside("x = g"), 1, 1, "a program has no imports"),
    "import from": ("from os import path\n" + inside("x = g"), 1, 1, "a program has no imports"),
    "import inside": (inside("import os"), 2, 5, ONLY_ASSIGNMENTS),
    "attribute": (inside("x = g.T"), 2, 9, "attributes are not allowed"),
    "method": (inside("x = g.sum()"), 2, 9, "by their plain names"),
    "dunder attribute": (inside("x = g.__class__"), 2, 9, "attributes are not allowed"),
    # Expressions.
    "lambda": (inside("x = lambda: g"), 2, 9, ONLY_NUMBERS),
    "called lambda": (inside("x = (lambda: g)()"), 2, 9, "by their plain names"),
    "subscript": (inside("x = g[0]"), 2, 9, ONLY_NUMBERS),
    "conditional": (inside("x = g if g else w"), 2, 9, ONLY_NUMBERS),
    "comparison": (inside("x = g < w"), 2, 9, ONLY_NUMBERS),
    "boolean": (inside("x = g and w"), 2, 9, ONLY_NUMBERS),
    "true": (inside("x = True"), 2, 9, ONLY_NUMBERS),
    "none": (inside("x = None"), 2, 9, ONLY_NUMBERS),
    "ellipsis": (inside("x = ..."), 2, 9, ONLY_NUMBERS),
    "string": (inside("x = 'g'"), 2, 9, ONLY_NUMBERS),
    "bytes": (inside("x = b'g'"), 2, 9, ONLY_NUMBERS),
    "f-string": (inside("x = f'{g}'"), 2, 9, ONLY_NUMBERS),
    "complex": (inside("x = 2j"), 2, 9, ONLY_NUMBERS),
    "list": (inside("x = [g]"), 2, 9, ONLY_NUMBERS),
    "tuple": (inside("x = g, w"), 2, 9, ONLY_NUMBERS),
    "comprehension": (inside("x = [a for a in g]"), 2, 9, ONLY_NUMBERS),
    "await": (inside("x = yield"), 2, 9, ONLY_NUMBERS),
    "walrus": (inside("x = (y := g)"), 2, 10, ONLY_NUMBERS),
    "modulo": (inside("x = g % w"), 2, 9, ONLY_NUMBERS),
    "floor": (inside("x = g // w"), 2, 9, ONLY_NUMBERS),
    "matrix product": (inside("x = g @ w"), 2, 9, ONLY_NUMBERS),
    "plus": (inside("x = +g"), 2, 9, ONLY_NUMBERS),
    "not": (inside("x = ~g"), 2, 9, ONLY_NUMBERS),
    "keyword argument": (inside("x = sqrt(x=g)"), 2, 9, "'sqrt' takes plain positional arguments only"),
    "star argument": (inside("x = sqrt(*g)"), 2, 9, "'sqrt' takes plain positional arguments only"),
    "double star": (inside("x = sqrt(g, **w)"), 2, 9, "'sqrt' takes plain positional arguments only"),
    "built-in": (inside("x = eval(g)"), 2, 9, "unknown function 'eval'"),
    "op as a value": (inside("x = sqrt"), 2, 9, "name 'sqrt' is not bound here"),
    "large number": (inside("x = 1e999"), 2, 9, FINITE),
    "negative large number": (inside("x = -1e999"), 2, 10, FINITE),
    "large integer": (inside("x = " + "9" * 400), 2, 9, FINITE),
    "huge integer": (inside("x = " + "9" * 5000), 2, 1, "Exceeds the limit"),
    "deep": (inside("x = " + "abs(" * 70 + "g" + ")" * 70), 2, 269, "nested 64 deep"),
    # Statements.
    "augmented": (inside("g += w"), 2, 5, "write `name = name + …`"),
    "annotated": (inside("x: tensor = g"), 2, 5, ONLY_ASSIGNMENTS),
    "if": (inside("if g: pass"), 2, 5, ONLY_ASSIGNMENTS),
    "loop": (inside("while 1: pass"), 2, 5, ONLY_ASSIGNMENTS),
    "pass": (inside("pass"), 2, 5, ONLY_ASSIGNMENTS),
    "expression": (inside("sqrt(g)"), 2, 5, ONLY_ASSIGNMENTS),
    "global": (inside("global x"), 2, 5, ONLY_ASSIGNMENTS),
    "inner function": (inside("def f(): return 1"), 2, 5, ONLY_ASSIGNMENTS),
    "early return": (inside("return w, m"), 2, 5, ONLY_ASSIGNMENTS),
    "two targets": (inside("x = y = g"), 2, 5, ONE_NAME),
    "unpacking": (inside("x, y = g"), 2, 5, ONE_NAME),
    "item": (inside("g[0] = w"), 2, 5, ONE_NAME),
    "attribute target": (inside("g.x = w"), 2, 5, ONE_NAME),
    "function name": (inside("norm = g"), 2, 12, "'norm' is the name of a function"),
    "own name": (inside("train = g"), 2, 13, "'train' is the name of a function"),
    "dunder": (inside("__x = g"), 2, 11, "'__x' is not allowed as a name"),
    "long name": (inside("x" * 100 + " = g"), 2, 108, "longer than 64 characters"),
    "letters of another script": (inside("é = g"), 2, 5, "'é' is not allowed as a name; use letters, digits and _"),
    "letters that Python folds": (inside("x = \uff47"), 2, 9, "is not allowed as a name; use letters, digits and _"),
    # Returns.
    "bare return": (HEAD + "    return\n", 2, 5, "`return update, m`"),
    "slot not returned": (HEAD + "    return w\n", 2, 5, "`return update, m`"),
    "slot as expression": (HEAD + "    return w, m + 1\n", 2, 5, "only the first may be an expression"),
    "too many outputs": (HEAD + "    return w, m, g\n", 2, 5, "`return update, m`"),
    "order of slots": ("def train(a, b):\n    return 0, b, a\n", 2, 5, "`return update, a, b`"),
    "unbound update": (HEAD + "    x = g\n    return y, m\n", 3, 5, "name 'y' is not bound here"),
    "update of another shape": (
        "def train(g):\n    return right_gram(g)\n",
        *(2, 5, "the update must have the shape of the weights, but update is a right"),
    ),
    "slot of another shape": (
        "def train(g, q: left):\n    q = row_sum(g)\n    return g, q\n",
        *(3, 5, "slot 'q' is of kind left but ends as a row; annotate it `q: row`"),
    ),
    "narrowed slot": ("def train(g, m: scalar):\n    m = g\n    return 0, m\n", 3, 5, "annotate it `m: tensor`"),
    "no body": ('def train(w):\n    """Only prose."""\n', 2, 5, "must end with `return update`"),
    # Signatures.
    "star": (signature("w, *more"), 1, 15, "*more is not allowed; name each parameter"),
    "stars": (signature("w, **more"), 1, 16, "**more is not allowed; name each parameter"),
    "positional only": (signature("w, /"), 1, 11, "`/` is not allowed"),
    "default": (signature("w, m=1"), 1, 16, "inputs and slots have no default"),
    "no default": (signature("w, *, b"), 1, 17, "'b' needs a number as default, as in `b=0.9`"),
    "odd default": (signature("w, *, b=w"), 1, 17, "'b' needs a number as default"),
    "boolean default": (signature("w, *, b=True"), 1, 17, "'b' needs a number as default"),
    "infinite default": (signature("w, *, b=-1e999"), 1, 20, FINITE),
    "annotated number": (signature("w, *, b: scalar=1"), 1, 17, "is a number; remove its annotation"),
    "annotated input": (signature("w: tensor"), 1, 11, "'w' is a reserved input and has its kind"),
    "unknown kind": (
        signature("w, m: matrix"),
        1,
        14,
        "must be one of the kinds scalar, leaf, row, column, tensor, left, right",
    ),
    "odd kind": (
        signature("w, m: 'leaf'"),
        1,
        14,
        "must be one of the kinds scalar, leaf, row, column, tensor, left, right",
    ),
    "named twice": ("def train(m, m):\n    return 0, m, m\n", 1, 1, "parameter 'm' appears twice"),
    "reserved number": (signature("w, *, lr=1"), 1, 1, "'lr' is a reserved input: write it before the `*`"),
    "slot name": ("def train(exp):\n    return 0, exp\n", 1, 1, "'exp' is the name of a function"),
    # The text as a whole.
    "empty": ("", 1, 1, "the text is empty"),
    "comment": ("# nothing", 1, 1, "the text is empty"),
    "no function": ("x = 1\n", 1, 1, ONLY_TRAIN),
    "prose": ("Lion is an optimizer", 1, 12, "not a program: invalid syntax"),
    "two functions": (inside("x = g") + inside("x = g"), 4, 1, "expected one function `def train(...):`, found 2"),
    "statement after": (inside("x = g") + "train()\n", 4, 1, ONLY_TRAIN),
    "other name": ("def step(w):\n    return w\n", 1, 1, "must be called 'train', not 'step'"),
    "async": ("async def train(w):\n    return w\n", 1, 1, ONLY_TRAIN),
    "class": ("class train:\n    pass\n", 1, 1, ONLY_TRAIN),
    "decorator": ("@jit\n" + inside("x = g"), 1, 2, "the only decorator is `@protected`"),
    "called decorator": ("@protected()\n" + inside("x = g"), 1, 2, "the only decorator is `@protected`"),
    "decorated twice": ("@protected\n@protected\n" + inside("x = g"), 2, 2, "appears twice"),
    "return annotation": ("def train(w) -> tensor:\n    return w\n", 1, 17, "a return annotation has no meaning"),
    "syntax": (inside("x = g +"), 2, 12, "not a program: invalid syntax"),
    "bracket": (inside("x = (g"), 2, 9, "not a program: '(' was never closed"),
    "indentation": (HEAD + "x = g\n", 2, 1, "not a program: expected an indented block"),
    "null": (inside("x = g\0"), 1, 1, "not a program: source code string cannot contain null bytes"),
    "surrogate": (inside("# \udc80"), 2, 7, "not a program: a lone surrogate is no character"),
    "mark of byte order": ("\ufeff" + inside("x = g"), 1, 1, "not a program: invalid non-printable character U+FEFF"),
    "odd comment": (inside("# a\x07"), 2, 5, "a comment must be printable text"),
    "odd docstring": (inside('"a\\x07"'), 1, 1, "the docstring must be printable text"),
    "long when printed": (HEAD + "#\n" * 60_000 + TAIL, 1, 1, "the text has more than 200000 characters"),
    "too long": (inside("x = g\n    " * MAXIMUM_STATEMENTS + "x = g"), MAXIMUM_STATEMENTS + 2, 9, "more than 4096"),
}


@pytest.mark.parametrize(("text", "line", "column", "reason"), BAD.values(), ids=BAD)
def test_bad_texts_are_answered_with_one_clear_line(text: str, line: int, column: int, reason: str) -> None:
    """Each error says where it is, what is wrong and what would be right."""
    with pytest.raises(ProgramError) as caught:
        parse(text)
    error = caught.value
    assert reason in error.reason
    assert error.line == line
    # Where Python itself cannot read the text, the column is its own and varies between its versions.
    assert error.column == column or (error.reason.startswith("not a program") and error.column)
    assert str(error) == f"line {line}, column {error.column}: {error.reason}"
    assert "\n" not in str(error)
    assert len(str(error)) < 1100
    assert error.__cause__ is None


def test_long_texts_are_not_read() -> None:
    """The cost of a text is bounded before anything looks at it."""
    with pytest.raises(ProgramError, match=f"at most {MAXIMUM_CHARACTERS} are read"):
        parse(" " * (MAXIMUM_CHARACTERS + 1))


@pytest.mark.parametrize("text", [None, b"def train(w): return w", 3])
def test_only_strings_are_texts(text: object) -> None:
    """Bytes and the like are refused in our own words."""
    with pytest.raises(ProgramError, match="a program text must be a string"):
        parse(text)  # type: ignore[arg-type]
