"""A table of the public functions on arrays: the arguments, options and results of each.

`python -m pyreg` and the tests iterate over this table, so their general checks cover every function added to it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

import pyreg
from pyreg._dtypes import compute_dtype
from pyreg.reference.global_norm import BLOCK

Array = npt.NDArray[Any]
Arguments = dict[str, Any]  # by name
Shape = tuple[int, ...]
Group = tuple[str, ...]


class Of(Enum):
    """What one element of an array corresponds to. The rows of x run along its last axis."""

    ELEMENT = auto()  # each element of x
    ROW = auto()  # each row
    COLUMN = auto()  # each position in a row; a result of this kind is a sum over the rows
    BLOCK = auto()  # 16,384 elements of x in C order
    ALL = auto()  # all of x: one number
    CALL = auto()  # the call: one truth value
    SOME = auto()  # some rows along the first axis: integers, their indices. The gradient has these rows alone

    def shape(self, x: Shape) -> Shape:
        blocks = -(-math.prod(x) // BLOCK)
        return {Of.ELEMENT: x, Of.ROW: x[:-1], Of.COLUMN: x[-1:], Of.BLOCK: (blocks,), Of.ALL: (), Of.CALL: ()}[self]


def sixteen_bit_dtypes() -> Sequence[type[np.generic]]:
    """float16, and bfloat16 if ml_dtypes is installed."""
    try:
        return np.float16, import_module("ml_dtypes").bfloat16
    except ModuleNotFoundError:
        return (np.float16,)


@dataclass(frozen=True)
class Case:
    """A public function, with every argument that it accepts."""

    name: str
    arrays: Mapping[str, Of]
    numbers: Mapping[str, Any]
    results: Mapping[str, Of]
    variants: Sequence[Arguments] = ()  # arguments to replace, per variant; an Of becomes an array
    optional: Sequence[str] = ()  # the arrays that may be None
    updated: Sequence[str] = ()  # the arrays that are updated in place
    statistics: Sequence[str] = ()  # the forward pass that it takes results of, and the arguments to call that with
    other_axes: Sequence[Arguments] = ()  # further variants, along another axis than the last
    samples: bool = False  # the offset counts samples (x's first axis), not elements
    in_float32: Sequence[Group] = ()  # arrays that may be float32 if x has 16 bits; those of a group together
    states: Sequence[str] = ()  # arrays that are float32 if x is float16
    only: Sequence[type[np.generic]] = ()  # the dtypes of x, if not all

    @property
    def outs(self) -> dict[str, str]:
        """The out arguments, and the result that each receives: the first, and any other as large as x."""
        results = [name for name, of in self.results.items() if of is Of.ELEMENT and self.arrays]
        return {f"{name}_out" if i else "out": name for i, name in enumerate(results)}

    @property
    def over(self) -> list[str]:
        """The arrays that an out may overwrite."""
        return [name for name, of in self.arrays.items() if of is Of.ELEMENT and self.outs]

    @property
    def dtypes(self) -> Sequence[type[np.generic]]:
        if not self.arrays:
            return (np.bool_,)  # a mask has one dtype
        return self.only or (np.float32, np.float64, *sixteen_bit_dtypes())

    def dtype_of(self, name: str, dtype: Any, in_float32: Sequence[str] = ()) -> Any:
        """The dtype of an array beside an x of this dtype."""
        widened = name in in_float32 or (name in self.states and dtype == np.float16)
        return compute_dtype(np.dtype(dtype)) if widened else dtype

    def arguments(
        self,
        shape: Shape,
        dtype: Any,
        seed: int = 0,
        forward: ModuleType = pyreg.reference,
        in_float32: Sequence[str] = (),
        **changes: Any,
    ) -> Arguments:
        """Valid arguments for an x of this shape, with `changes` applied; `forward` runs the forward pass.

        in_float32: the arrays that are float32 if x has 16 bits.
        """
        rng = np.random.default_rng([seed, *shape])
        made: Arguments = {}
        for name, of in self.arrays.items():
            made[name] = valid(name, draw(rng, of.shape(shape), self.dtype_of(name, dtype, in_float32)))
        made |= {name: shape if name == "shape" else value for name, value in self.numbers.items()} | changes
        if made.get("rows") is Of.SOME:
            made["rows"] = np.arange(0, shape[0], 2)
            made["grad"] = made["grad"][made["rows"]]
        chosen = {name: of for name, of in made.items() if isinstance(of, Of)}
        made |= {name: valid(name, draw(rng, of.shape(shape), dtype)) for name, of in chosen.items()}
        if self.statistics and made[self.statistics[1]] is not None:
            function, x, *options = self.statistics
            results = getattr(forward, function)(made[x], **{name: made[name] for name in options})
            made |= {name: getattr(results, name) for name in self.arrays if hasattr(results, name)}
        return made

    def call(self, twin: ModuleType, arguments: Arguments) -> dict[str, Any]:
        """The results and the updated arrays, by name. The function updates copies, not the arrays in `arguments`."""
        arguments = arguments | {name: arguments[name].copy() for name in self.updated if arguments[name] is not None}
        returned = getattr(twin, self.name)(**arguments)
        results = returned if len(self.results) > 1 else [returned] if self.results else []
        return dict(zip(self.results, results, strict=True)) | {name: arguments[name] for name in self.updated}

    def cut(self, arguments: Arguments, shape: Shape, part: slice) -> Arguments:
        """The arguments for a part of the first axis of x, of this shape, at its offset in the random stream."""
        rows = self.rows_of(arguments)
        made = arguments | {name: arguments[name][part] for name in rows}
        if "shape" in made:
            made["shape"] = (part.stop - part.start, *shape[1:])
        if "offset" in made:
            made["offset"] += part.start * (1 if self.samples else math.prod(shape[1:]))
        if made.get("rows") is not None:
            inside = (arguments["rows"] >= part.start) & (arguments["rows"] < part.stop)
            made |= {"rows": arguments["rows"][inside] - part.start, "grad": arguments["grad"][inside]}
        return made

    def rows_of(self, arguments: Arguments) -> list[str]:
        """The arrays in the arguments that have an element for each element of x, or for each row."""
        whole = {name for name, of in self.arrays.items() if of not in (Of.ELEMENT, Of.ROW)}
        some = {"rows", "grad"} if arguments.get("rows") is not None else set()
        given = [name for name in (*self.arrays, *self.numbers) if isinstance(arguments.get(name), np.ndarray)]
        return [name for name in given if name not in whole | some]

    def variants_of(self, shape: Shape, dtype: Any) -> list[Arguments]:
        """The variants that suit an x of this shape and dtype: a causal mask needs two axes, rows need one."""
        variants = [v for v in self.variants if len(shape) > 1 or not v.get("causal")]
        variants = [v for v in variants if len(shape) > 0 or not v.get("rows")]
        return [{}, *variants, *(self.mixed if dtype in sixteen_bit_dtypes() else [])]

    @property
    def mixed(self) -> list[Arguments]:
        """Variants in which all arrays are float32 that may be, and those in which every other one is."""
        choices = {tuple(self.in_float32[first::step]): None for first, step in ((0, 1), (0, 2), (1, 2))}
        return [{"in_float32": [name for group in chosen for name in group]} for chosen in choices if chosen]


def draw(rng: np.random.Generator, shape: Shape, dtype: Any) -> Array:
    wide = compute_dtype(np.dtype(dtype)).type
    return np.asarray(rng.standard_normal(shape, wide) * 2 + wide(0.5), dtype)


def valid(name: str, array: Array) -> Array:
    """The array, changed so that its values are valid for an argument of this name. It may be overwritten."""
    if name.endswith("exp_avg_sq"):
        array *= array
    if name == "mask":
        array[array > 2] = -np.inf
    if name == "keep":
        return array > -1
    return array


# --- the functions


DROPOUT = {"p": 0.1, "key": 2**63 + 5, "offset": 2**36 + 3}
TRAINING = DROPOUT | {"training": True}
# 0.5: the first byte of the threshold decides; 0: nothing is dropped; 1: everything is dropped.
PROBABILITIES: Sequence[Arguments] = ({"p": 0.5}, {"p": 0.0, "key": None}, {"p": 1.0})
INFERENCE: Arguments = {"training": False, "key": None}
FROM_Y: Sequence[Arguments] = ({"x": None, "y": Of.ELEMENT}, {"x": None, "y": Of.ELEMENT, "bias": None})


def without(*groups: Sequence[str]) -> list[Arguments]:
    """One variant for each group, in which its arguments are None."""
    return [dict.fromkeys(group) for group in groups]


def each(names: Sequence[str]) -> list[Group]:
    return [(name,) for name in names]


def norm(function: str, parameters: Sequence[str], statistics: Sequence[str]) -> list[Case]:
    forward, backward = f"{function}_forward", f"{function}_backward"
    rows, y = dict.fromkeys(statistics, Of.ROW), {"y": Of.ELEMENT}
    arrays = {"x": Of.ELEMENT} | dict.fromkeys(parameters, Of.COLUMN)
    numbers = {"normalized_shape": None, "eps": 1e-3}
    variants = without(*([name] for name in parameters), parameters)
    given = {"dy": Of.ELEMENT, "x": Of.ELEMENT} | rows | {"weight": Of.COLUMN}
    gradients = {"dx": Of.ELEMENT} | {f"d{name}": Of.COLUMN for name in parameters}
    options: Arguments = {"optional": parameters, "in_float32": each(parameters)}
    weight: Arguments = {"optional": ("weight",), "in_float32": [("weight",)], "statistics": (forward, "x")}

    return [
        Case(function, arrays, numbers, y, variants, **options),
        Case(forward, arrays, numbers, y | rows, variants, **options),
        Case(backward, given, {}, gradients, without(["weight"]), **weight),
    ]


def dropout_add_norm(norm: str, parameters: Sequence[str], statistics: Sequence[str]) -> list[Case]:
    rows = dict.fromkeys(statistics, Of.ROW)
    scales = {"row_scale": Of.ROW, "layer_scale": Of.COLUMN}
    branch, gradients = tuple(scales), {f"d{name}": Of.COLUMN for name in (*parameters, "layer_scale")}
    left_out = without([*branch, "x"], ["layer_scale"], ["dz"], ["weight"])
    return [
        Case(
            f"dropout_add_{norm}_forward",
            {"x": Of.ELEMENT, "residual": Of.ELEMENT} | dict.fromkeys(parameters, Of.COLUMN) | scales,
            TRAINING | {"normalized_shape": None, "eps": 1e-3, "return_z": True},
            {"y": Of.ELEMENT, "z": Of.ELEMENT} | rows,
            [*without(branch, ["residual"], parameters), {"return_z": False}, INFERENCE, *PROBABILITIES],
            ("residual", *parameters, *branch),
            in_float32=each(["residual", *parameters, *branch]),
        ),
        Case(
            f"dropout_add_{norm}_backward",
            dict.fromkeys(("dy", "dz", "z", "x"), Of.ELEMENT) | rows | {"weight": Of.COLUMN} | scales,
            DROPOUT | {"return_dresidual": True},
            {"dx": Of.ELEMENT, "dresidual": Of.ELEMENT} | gradients,
            [*left_out, {"return_dresidual": False}, *PROBABILITIES],
            ("dz", "weight", *branch),
            statistics=(f"{norm}_forward", "z"),
            in_float32=[("z", "dz"), *each(["weight", *branch])],
        ),
    ]


def activation_dropout(name: str, kinds: Arguments, *others: Arguments, from_y: bool = False) -> list[Case]:
    """kinds: the arguments that only this activation takes; others: variants; from_y: its backward takes y too."""
    x, y, bias = {"x": Of.ELEMENT}, {"y": Of.ELEMENT}, {"bias": Of.COLUMN}
    dy, made = {"dy": Of.ELEMENT}, {"dx": Of.ELEMENT, "dbias": Of.COLUMN}
    variants: list[Arguments] = [{"bias": None}, *PROBABILITIES, *others]
    numbers, backward = DROPOUT | kinds | ({"y": None} if from_y else {}), FROM_Y if from_y else ()
    options: Arguments = {"optional": ("bias",), "in_float32": [("bias",)]}
    return [
        Case(f"{name}_dropout_forward", x | bias, TRAINING | kinds, y, [INFERENCE, *variants], **options),
        Case(f"{name}_dropout_backward", dy | x | bias, numbers, made, [*variants, *backward], **options),
    ]


def softmax_dropout() -> list[Case]:
    x, y, masks = {"x": Of.ELEMENT}, {"y": Of.ELEMENT}, {"mask": Of.COLUMN, "keep": Of.COLUMN}
    dy, dx, rows = {"dy": Of.ELEMENT}, {"dx": Of.ELEMENT}, {"maximum": Of.ROW, "rsum": Of.ROW}
    scores = {"scale": 0.3, "causal": False, "axis": -1}
    corner: Arguments = {"causal": "lower_right"}
    left_out = without(["mask"], ["keep"], [*masks])
    variants = [*left_out, {"causal": True}, {"mask": None} | corner, {"keep": None} | corner, *PROBABILITIES]
    other_axes: list[Arguments] = [{"axis": 0}, {"axis": 0, "p": 1.0}, {"axis": -2, "p": 0.0} | dict.fromkeys(masks)]
    from_y = dict.fromkeys((*x, *rows, "mask")) | {"y": Of.ELEMENT, "p": 0.0}
    forward, backward = "softmax_dropout_forward", "softmax_dropout_backward"
    return [
        Case(
            forward,
            x | masks,
            TRAINING | scores,
            y | rows,
            [INFERENCE, *variants],
            tuple(masks),
            other_axes=other_axes,
            in_float32=[("mask",)],
        ),
        Case(
            backward,
            dy | x | rows | masks,
            DROPOUT | scores | {"y": None},
            dx,
            [*variants, from_y, {"keep": None} | from_y, {"causal": True} | from_y],
            tuple(masks),
            statistics=(forward, *x, *masks, *scores),
            other_axes=other_axes,
            in_float32=[("mask",)],
        ),
    ]


def dropout(function: str, **options: Any) -> Case:
    variants: list[Arguments] = [{"p": 1e-3}, {"p": 1 / 3}, INFERENCE, *PROBABILITIES]
    return Case(function, {"x": Of.ELEMENT}, TRAINING, {"y": Of.ELEMENT}, variants, **options)


def update(function: str, states: Sequence[str], numbers: Arguments, *variants: Arguments) -> Case:
    """states: the arrays beside param. The last one is optional."""
    copies = ("ema", "param_out")
    arrays = dict.fromkeys(("param", "grad", *states, *copies), Of.ELEMENT)
    numbers = {"step": 3, "lr": 0.01, "weight_decay": 0.1, "maximize": False} | numbers
    numbers |= {"grad_scale": 0.7, "skip_nonfinite": False, "ema_decay": 0.9}
    stream: Arguments = {"rows": None, "rounding": "nearest", "key": None, "offset": 2**36 + 3}
    numbers |= stream
    key = DROPOUT["key"]
    every: list[Arguments] = [{"step": 1}, {"step": 1000}, {"maximize": True}, {"weight_decay": 0.0}]
    every += [{"ema": None, "grad_scale": 1.0}, {"param_out": None, "skip_nonfinite": True, "ema_decay": 0.25}]
    every += [{"grad_scale": 3e38, "skip_nonfinite": True}]  # beyond float32, so nothing changes
    every += [{"rounding": "stochastic", "key": key}, {"rounding": {"param": "stochastic"}, "key": key, "ema": None}]
    every += [{"rows": Of.SOME}, {"rows": Of.SOME, "rounding": "stochastic", "key": key}]
    return Case(
        function,
        arrays,
        numbers,
        {"applied": Of.CALL},
        [*every, *variants],
        (*states[-1:], *copies),
        ("param", *states, *copies),
        in_float32=each(["grad", *states, *copies]),
        states=states,
    )


ADAM_STATE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
ADAM: Arguments = {"betas": (0.9, 0.999), "eps": 1e-6, "bias_correction": True}
ADAM_VARIANTS: Sequence[Arguments] = (
    {"max_exp_avg_sq": None},
    {"betas": (0.25, 0.9)},
    {"bias_correction": False, "eps": 0.0},
)
SGD: Arguments = {"momentum": 0.9, "dampening": 0.0, "nesterov": False}
PLAIN_SGD: Arguments = {"momentum": 0.0, "momentum_buffer": None}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *norm("layer_norm", ("weight", "bias"), ("mean", "rstd")),
        *norm("rms_norm", ("weight",), ("rstd",)),
        *dropout_add_norm("layer_norm", ("weight", "bias"), ("mean", "rstd")),
        *dropout_add_norm("rms_norm", ("weight",), ("rstd",)),
        *softmax_dropout(),
        *activation_dropout("gelu", {"approximate": "none"}, {"approximate": "tanh"}),
        *activation_dropout("relu", {}, from_y=True),
        *activation_dropout("silu", {}),
        dropout("dropout"),
        dropout("drop_path", samples=True),
        Case("dropout_mask", {}, {"shape": ()} | DROPOUT, {"kept": Of.ELEMENT}, [{"p": 1e-3}, *PROBABILITIES]),
        Case("l2_penalty", {"params": Of.ELEMENT}, {"weight_decay": 0.1}, {"penalty": Of.ALL}),
        Case("global_norm", {"arrays": Of.ELEMENT}, {}, {"norm": Of.ALL}),
        Case("norm_partial", {"arrays": Of.ELEMENT}, {}, {"partials": Of.BLOCK}),
        Case("norm_combine", {"partials": Of.ELEMENT}, {}, {"norm": Of.ALL}, only=(np.float64,)),
        update("adamw_update", ADAM_STATE, ADAM, *ADAM_VARIANTS),
        update("adam_update", ADAM_STATE, ADAM, *ADAM_VARIANTS),
        update("sgd_update", ("momentum_buffer",), SGD, {"nesterov": True}, {"dampening": 0.3}, PLAIN_SGD),
    )
}
