"""A program as a PyTorch optimizer: one module that needs no Evolion."""

from __future__ import annotations

import importlib.metadata
import inspect
import keyword
import textwrap
from dataclasses import dataclass

from evolion.discovered.torch_body import Body, body
from evolion.discovered.torch_expressions import function_names, functions, options_of
from evolion.discovered.torch_statements import SHAPES, Statements
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import behavioural_key, structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.op import Matrixwise, Reduction
from evolion.primitives.program import Parameter, Program

__all__ = ["class_name", "torch_module"]

_WIDTH = 100
_SIDED = (Kind.ROW, Kind.COLUMN, Kind.LEFT, Kind.RIGHT)
_USED = frozenset(
    ["math", "np", "torch", "zip", "next", "len", "sum", "float", "range", "any", "self", "params", "group", "closure",
     "dtype", "device", "state", "step", "seed", "generator", "p", "x", "estimates", "value", "name", "output_axis",
     "number", "batches", "foreach", "maximize", "super", "axis", "weights", "count", "orthogonalize_dtype"]
)  # fmt: skip


def class_name(name: str) -> str:
    """Return the name of the generated class: `lion_k` becomes `LionK`."""
    found = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    return found if found.isidentifier() and not keyword.iskeyword(found) else f"Optimizer{found}"


def torch_module(program: Program, name: str, evidence: str) -> str:
    """Return a module with a `torch.optim.Optimizer` that does what the program does.

    The module imports PyTorch, and NumPy where numbers are computed that floats of Python do not have.

    Args:
        program: The program; dead code is left out.
        name: What the optimizer is called; its class is `class_name(name)`.
        evidence: Plain text for the module's documentation.

    """
    live = remove_dead_code(program)
    plan = Statements(live)
    module = _Module(live, name, plan, body(plan, _USED | function_names() | {class_name(name)}))
    parts = [_head(module), *_init(module), *_add_group(module), *_load(module), *_step(module)]
    parts += [*_prepare(module), *_update(module)]
    code = "\n".join(f"    {line}".rstrip() if depth else line for depth, line in enumerate(parts))
    texts = functions(code)
    used = "\n".join([*texts, code])
    imports = [f"import {line}" for line in ("math", "numpy as np", "torch") if line.split()[-1] + "." in used]
    groups = ["\n".join(imports[:1]), "\n".join(imports[1:])] if imports[0] == "import math" else ["\n".join(imports)]
    return (
        "\n\n\n".join([_documentation(program, module, evidence) + "\n\n" + "\n\n".join(groups), *texts, code]) + "\n"
    )


@dataclass(frozen=True, slots=True)
class _Module:
    """What is to be written."""

    program: Program
    name: str
    plan: Statements
    body: Body

    def slots(self, *, scalar: bool) -> list[Parameter]:
        """The slots that are kept for each group, or those that are kept for each parameter."""
        return [slot for slot in self.program.slots if (slot.kind is Kind.SCALAR) == scalar]

    @property
    def by_group(self) -> bool:
        """Whether all parameters of a group must take their steps together."""
        whole = any(isinstance(m, Reduction) and m.scope is Kind.SCALAR for m in self.plan.meanings)
        return whole or bool(self.slots(scalar=True)) or "noise" in self.program.inputs

    @property
    def sided(self) -> bool:
        """Whether rows are told from columns."""
        kinds = [*self.plan.kinds, *self.plan.entry.values()]
        return any(isinstance(m, Matrixwise) for m in self.plan.meanings) or any(kind in _SIDED for kind in kinds)

    @property
    def counted(self) -> bool:
        return "t" in self.program.inputs or self.by_group

    @property
    def state(self) -> bool:
        """Whether there is state for each parameter."""
        return bool(self.slots(scalar=False)) or "w0" in self.program.inputs or (self.counted and not self.by_group)

    @property
    def numbers(self) -> list[str]:
        """The options of a group that are numbers: learning rate, horizon and hyperparameters."""
        inputs = [name for name in ("lr", "horizon") if name in self.program.inputs]
        return [self.body.names[name] for name in (*inputs, *(h.name for h in self.program.hyperparameters))]

    @property
    def options(self) -> dict[str, str]:
        """The further options of a group, with the text of their defaults."""
        found = {"seed": "0"} if "noise" in self.program.inputs else {}
        found |= {"output_axis": "0"} if self.sided else {}
        return found | {name: "None" for op in self.plan.ops for name in options_of(op)}


def _documentation(program: Program, module: _Module, evidence: str) -> str:
    about = program.docstring or "an optimizer in the form of a PyTorch optimizer."
    parts = [about if about.casefold().startswith(module.name.casefold()) else f"{module.name}: {about}"]
    numbers = ", ".join(f"{h.name}={h.value!r}" for h in program.hyperparameters)
    parts += [f"Hyperparameters: {numbers}." if numbers else ""]
    parts += ["Low-precision parameters are updated in float32, and so is the state kept; float64 stays float64."]
    if module.by_group:
        parts.append("What is computed over all parameters is computed over those of a group that have a gradient.")
    if module.sided:
        parts.append(
            "The rule tells inputs from outputs. The weights of linear and convolutional layers have their outputs on "
            "axis 0, and are seen with that axis last; give groups with another one, such as embeddings (-1) and "
            "transposed convolutions (1), as output_axis."
        )
    if "orthogonalize_dtype" in module.options:
        parts.append(
            "Newton-Schulz iterations are in the precision of the update, unless orthogonalize_dtype names another: "
            "torch.optim.Muon has torch.bfloat16."
        )
    parts += [f"Evidence:\n\n{inspect.cleandoc(evidence)}" if evidence else ""]
    parts += [
        f"Written by Evolion {importlib.metadata.version('evolion')} from the program with\n"
        f"structural key {structural_key(program)} and\nbehavioural key {behavioural_key(program)}."
    ]
    text = "\n\n".join(_wrapped(part.rstrip()) for part in parts if part)
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{text}\n"""'


def _wrapped(text: str) -> str:
    lines = [
        line if len(line) <= 117 else textwrap.fill(line, 110, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    ]
    return "\n".join(lines)


def _head(module: _Module) -> str:
    return f"class {class_name(module.name)}(torch.optim.Optimizer):"


def _block(text: str) -> list[str]:
    return text.splitlines()


def _init(module: _Module) -> list[str]:
    names, program = module.body.names, module.program
    arguments = ["lr"] if "lr" in program.inputs else []
    keywords = [names["horizon"]] if "horizon" in program.inputs else []
    keywords += [f"{names[h.name]}={h.value!r}" for h in program.hyperparameters]
    keywords += [f"{name}={default}" for name, default in module.options.items()]
    arguments = ["self", "params", *arguments, *(["*", *keywords] if keywords else [])]
    line = f"def __init__({', '.join(arguments)}):"
    if len(line) > _WIDTH:
        line = textwrap.fill(", ".join(arguments), _WIDTH - 8, initial_indent="    ", subsequent_indent="    ")
        line = f"def __init__(\n{line}\n):"
    defaults = [f'"{name}": {name}' for name in [*module.numbers, *module.options]]
    defaults += ['"step": 0'] if module.by_group else []
    lines = textwrap.fill(", ".join(defaults), _WIDTH - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)
    one = f"    super().__init__(params, {{{', '.join(defaults)}}})"
    if len(one) <= _WIDTH:
        return [f'"""{module.name} as a PyTorch optimizer."""', "", *_block(line), one]
    single = f"    defaults = {{{', '.join(defaults)}}}"
    single = single if len(single) <= _WIDTH else f"    defaults = {{\n{lines}\n    }}"
    body = f"{single}\n    super().__init__(params, defaults)"
    return [f'"""{module.name} as a PyTorch optimizer."""', "", *_block(line), *_block(body)]


def _add_group(module: _Module) -> list[str]:
    if not module.numbers:
        return []
    names = _tuple([f'"{n}"' for n in module.numbers])
    if len(names) > _WIDTH - 20:
        names = textwrap.fill(names[1:-1], _WIDTH - 8, initial_indent=" " * 8, subsequent_indent=" " * 8)
        names = f"(\n{names}\n    )"
    return _block(
        f"""
def add_param_group(self, param_group):
    \"\"\"Add a group of parameters with options of its own.\"\"\"
    for name in {names}:
        value = param_group.get(name, self.defaults[name])
        if not math.isfinite(value):
            raise ValueError(f"{{name}} must be a finite number, got {{value!r}}")
    super().add_param_group(param_group)"""
    )


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _load(module: _Module) -> list[str]:
    if not (module.slots(scalar=False) or "w0" in module.program.inputs):
        return []
    return _block(
        '''
def load_state_dict(self, state_dict):
    """Load a state; unlike in torch it keeps its precision where parameters have a lower one."""
    super().load_state_dict(state_dict)
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    params = [p for group in self.param_groups for p in group["params"]]
    for number, p in zip(numbers, params):
        for name, value in state_dict["state"].get(number, {}).items():
            if torch.is_tensor(value):
                self.state[p][name] = value.to(p.device, copy=True)'''
    )


def _step(module: _Module) -> list[str]:
    inputs = module.program.inputs
    hess, loss = "hess" in inputs, "loss" in inputs
    about = "Take a step; a closure computes the gradients anew and returns the loss."
    if hess:
        about += (
            "\n\n    hess: estimates of the diagonal of the Hessian, one tensor for each parameter with gradient.\n    "
        )
    lines = [
        "",
        "@torch.no_grad()",
        f"def step(self, closure=None{', *, hess=None' if hess else ''}):",
        f'    """{about}"""',
        "    loss = None",
        "    if closure is not None:",
        "        with torch.enable_grad():",
        "            loss = closure()",
    ]
    if loss:
        lines += ["    if loss is None:", f'        raise ValueError("{module.name} reads the loss: '
                  'give step a closure that returns it")']  # fmt: skip
    lines += [
        '    given = [p for group in self.param_groups for p in group["params"] if p.grad is not None]',
        "    if any(p.grad.layout != torch.strided or not p.is_floating_point() for p in given):",
        f'        raise TypeError("{module.name} needs dense gradients of real parameters")',
    ]
    if hess:
        lines += [
            "    if hess is None or [h.shape for h in hess] != [p.shape for p in given]:",
            f'        raise ValueError("{module.name} needs hess, one tensor for each parameter with gradient")',
            "    estimates = dict(zip(given, hess))",
        ]
    more = (", loss" if loss else "") + (", estimates" if hess else "")
    lines += _groups(module, more) if module.by_group else _batches(module, more)
    return [line for text in [*lines, "    return loss"] for line in text.splitlines() or [""]]


def _groups(module: _Module, more: str) -> list[str]:
    number = "noise" in module.program.inputs
    lines = [
        f"    for {'number, group in enumerate(self.param_groups)' if number else 'group in self.param_groups'}:",
        '        params = [p for p in group["params"] if p.grad is not None and p.numel()]',
        "        if not params:",
        "            continue",
        "        if len({p.device for p in params}) > 1:",
        f'            raise ValueError("{module.name} needs the parameters of a group on one device")',
        '        double = any(p.dtype == torch.float64 for p in group["params"])',
        "        dtype = torch.float64 if double else torch.float32",
    ]
    slots = module.slots(scalar=True)
    if slots:
        zero = "torch.zeros((), dtype=dtype, device=params[0].device)"
        lines += ['        if group["step"] == 0:']
        lines += [f'            group["{module.body.names[slot.name]}"] = {zero}' for slot in slots]
    if module.state:
        lines += ["        for p in params:", "            self._prepare(p, group, dtype)"]
    lines += ['        group["step"] += 1', f"        self._update(params, group, dtype{', number' * number}{more})"]
    return lines


def _batches(module: _Module, more: str) -> list[str]:
    key = '(self.state[p]["step"], dtype, p.device)' if module.counted else "(dtype, p.device)"
    lines = [
        "    for group in self.param_groups:",
        "        batches = {}",
        '        for p in group["params"]:',
        "            if p.grad is None or p.numel() == 0:",
        "                continue",
        "            dtype = torch.float64 if p.dtype == torch.float64 else torch.float32",
    ]
    lines += ["            self._prepare(p, group, dtype)"] if module.state else []
    lines += ['            self.state[p]["step"] += 1'] if module.counted else []
    lines += [
        f"            batches.setdefault({key}, []).append(p)",
        f"        for ({'t, ' * module.counted}dtype, _), params in batches.items():",
        f"            self._update(params, group, dtype{', t' * module.counted}{more})",
    ]
    return lines


def _prepare(module: _Module) -> list[str]:
    """Write the method that starts the state of a parameter."""
    if not module.state:
        return []
    lines = [
        "",
        "def _prepare(self, p, group, dtype):",
        '    """Start the state of a parameter that has none."""',
        "    state = self.state[p]",
        "    if state:",
        "        return",
    ]
    lines += ['    x = torch.movedim(p, group["output_axis"], -1) if p.ndim > 1 else p'] if module.sided else []
    x = "x" if module.sided else "p"
    lines += ['    state["step"] = 0'] if module.counted and not module.by_group else []
    for slot in module.slots(scalar=False):
        shape = SHAPES[slot.kind].format(x)
        like = slot.kind is Kind.TENSOR
        zeros = f"zeros_like({x}, dtype=dtype)" if like else f"zeros({shape}, dtype=dtype, device=p.device)"
        lines.append(f'    state["{module.body.names[slot.name]}"] = torch.{zeros}')
    lines += [f'    state["w0"] = {x}.to(dtype, copy=True)'] if "w0" in module.program.inputs else []
    return lines


def _update(module: _Module) -> list[str]:
    inputs, names, numpy = module.program.inputs, module.body.names, module.plan.needs_numpy()
    arguments = ["self", "params", "group", "dtype"]
    if module.by_group:
        arguments += ["number"] * ("noise" in inputs)
    else:
        arguments += ["t"] * module.counted
    arguments += ["loss"] * ("loss" in inputs) + ["estimates"] * ("hess" in inputs)
    lines = ["", *['@np.errstate(all="ignore")'] * numpy, f"def _update({', '.join(arguments)}):"]
    body = ['"""Update parameters of a group in place, in one precision."""', *_numbers(module, numpy)]
    body += _lists(module) + list(module.body.lines) + _kept(module)
    weights = "weights" if module.sided else names["w"]
    body += [f"for p, x in zip(params, {weights}):", "    if x is not p:", "        p.copy_(x)"]
    text = "\n".join(body)
    if "device" in text.replace("device = params", ""):
        body = text.splitlines()
        body.insert(1, "device = params[0].device")
        text = "\n".join(body)
    return [*lines, *(f"    {line}" for line in text.splitlines())]


def _numbers(module: _Module, numpy: bool) -> list[str]:
    """Write what reads the options of a group."""
    inputs, names = module.program.inputs, module.body.names
    made = "np.float64({0})" if numpy else "{0}"
    lines = [f"{name} = {made}".replace("{0}", f'group["{name}"]') for name in module.numbers]
    if len(lines) > 1:
        keys = textwrap.fill(", ".join(f'"{name}"' for name in module.numbers), _WIDTH - 12)
        line = f"{', '.join(module.numbers)} = ({made.format('group[name]')} for name in ({keys}))"
        lines = [line] if len(line) <= _WIDTH + 10 else lines
    if "t" in inputs:
        count = 'group["step"]' if module.by_group else "t"
        lines += [f"t = {made.format(count)}"] if count != "t" or numpy else []
    if "loss" in inputs:
        lines.append("loss = torch.as_tensor(loss, dtype=dtype, device=device).detach()")
    own = dict.fromkeys(name for op in module.plan.ops for name in options_of(op))
    lines += [f'{name} = group["{name}"]' for name in own]
    scalars = [names[slot.name] for slot in module.slots(scalar=True)]
    return lines + [f'{name} = group["{name}"].to(device)' for name in scalars]


def _lists(module: _Module) -> list[str]:
    """Write the lists with one tensor for each parameter."""
    inputs, names, w = module.program.inputs, module.body.names, module.body.names["w"]
    tensors = {"g": "p.grad.to(dtype)", "hess": "estimates[p].to(dtype)"}
    given = [(names[name], source) for name, source in tensors.items() if name in inputs]
    if module.sided:
        lines = [
            'axis = group["output_axis"]',
            "weights = [p.to(dtype) for p in params]",
            f"{w} = [torch.movedim(x, axis, -1) if x.ndim > 1 else x for x in weights]",
        ]
        for name, source in given:
            lines.append(f"{name} = [torch.movedim({source}, axis, -1) if p.ndim > 1 else {source} for p in params]")
    else:
        lines = [f"{w} = [p.to(dtype) for p in params]"]
        lines += [f"{name} = [{source} for p in params]" for name, source in given]
    if "noise" in inputs:
        lines += [
            'seed = 1_000_003 * (1_000_003 * int(group["seed"]) + number) + group["step"]',
            "generator = torch.Generator(device).manual_seed(seed % 2**32)",
            f"{names['noise']} = [torch.randn(x.shape, generator=generator, dtype=dtype, device=device) for x in {w}]",
        ]
    kept = [names[slot.name] for slot in module.slots(scalar=False)] + ["w0"] * ("w0" in inputs)
    return lines + [f'{name} = [self.state[p]["{name}"] for p in params]' for name in kept]


def _kept(module: _Module) -> list[str]:
    """Write what keeps the new values of slots that were not changed in place."""
    names, kinds = module.body.names, {slot.name: slot.kind for slot in module.program.slots}
    stored = module.body.stored
    lines = [f'group["{names[s]}"] = {value}' for s, value in stored.items() if kinds[s] is Kind.SCALAR]
    wide = {names[s]: value for s, value in stored.items() if kinds[s] is not Kind.SCALAR}
    if wide:
        items = [f"x{count}" if len(wide) > 1 else "x" for count in range(1, len(wide) + 1)]
        lines.append(f"for p, {', '.join(items)} in zip(params, {', '.join(wide.values())}):")
        lines += [f'    self.state[p]["{name}"] = {item}' for name, item in zip(wide, items, strict=True)]
    return lines
