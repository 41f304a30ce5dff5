"""What `python -m pyreg` checks: that this build, on this machine, gives the answers that pyreg promises.

Every function is held, bit for bit, against its twin in `pyreg.reference`; and the random stream and the plain
formulas against numbers that come from elsewhere.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import pyreg
from pyreg.reference.philox import philox

Twin = ModuleType  # pyreg or pyreg.reference
Case = Callable[[Twin, Any], Any]  # of the twin and a dtype


class Check(NamedTuple):
    name: str
    passed: bool
    detail: str  # where it did not: what differs


def self_check() -> Iterator[Check]:
    """Run the checks, one after the other."""
    for name, answer in KNOWN_ANSWERS.items():
        yield run(f"{name}: known answer", answer)
    for name, case in CASES.items():
        # A mask has one dtype.
        for dtype in (np.bool_,) if name == "dropout_mask" else (np.float32, np.float64):
            yield run(f"{name}, {np.dtype(dtype)}: reference", partial(same_bits, case, dtype))


def run(name: str, check: Callable[[], str]) -> Check:
    """A check that ends in an exception has failed."""
    try:
        detail = check()
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
    return Check(name, detail == "", detail)


def same_bits(case: Case, dtype: Any) -> str:
    expected = case(pyreg.reference, dtype)
    for threads in sorted({1, pyreg.get_num_threads()}):
        with pyreg.num_threads(threads):
            actual = case(pyreg, dtype)
        for i, (got, wanted) in enumerate(zip(map(np.asarray, actual), map(np.asarray, expected), strict=True)):
            if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
                is_not = f"is {got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}"
                return f"on {threads} threads, result {i} {is_not}"
            if got.tobytes() != wanted.tobytes():
                count = np.count_nonzero(got != wanted)
                return f"on {threads} threads, {count} elements of result {i} differ"
    return ""


# --- each function, on arrays whose sizes are no multiple of anything


def random_array(shape: int | tuple[int, ...], dtype: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0.5, 2, shape).astype(dtype)


def layer_norm(twin: Twin, dtype: Any) -> Any:
    x, weight, bias = random_array((130, 1001), dtype), random_array(1001, dtype, 1), random_array(1001, dtype, 2)
    out = np.empty_like(x)
    twin.layer_norm(x, None, bias, out=out)
    return twin.layer_norm(x, weight, bias), out


def layer_norm_forward(twin: Twin, dtype: Any) -> Any:
    # More than 32 MiB are moved: the result is written past the caches.
    return twin.layer_norm_forward(random_array((1100, 4099), dtype))


def layer_norm_backward(twin: Twin, dtype: Any) -> Any:
    x, dy, weight = (
        random_array((130, 1001), dtype),
        random_array((130, 1001), dtype, 1),
        random_array(1001, dtype, 2),
    )
    _, mean, rstd = pyreg.reference.layer_norm_forward(x, weight)
    return *twin.layer_norm_backward(dy, x, mean, rstd, weight), twin.layer_norm_backward(dy, x, mean, rstd)[0]


def rms_norm(twin: Twin, dtype: Any) -> Any:
    x, weight = random_array((130, 1001), dtype), random_array(1001, dtype, 1)
    out = np.empty_like(x)
    twin.rms_norm(x, out=out)
    return twin.rms_norm(x, weight), out


def rms_norm_forward(twin: Twin, dtype: Any) -> Any:
    return twin.rms_norm_forward(random_array((1100, 4099), dtype))


def rms_norm_backward(twin: Twin, dtype: Any) -> Any:
    x, dy, weight = (
        random_array((130, 1001), dtype),
        random_array((130, 1001), dtype, 1),
        random_array(1001, dtype, 2),
    )
    _, rstd = pyreg.reference.rms_norm_forward(x, weight)
    return *twin.rms_norm_backward(dy, x, rstd, weight), twin.rms_norm_backward(dy, x, rstd)[0]


def fused_arguments(dtype: Any) -> tuple[Any, dict[str, Any]]:
    """x, the residual, dy and the weight; the other arguments."""
    arrays = [*(random_array((130, 1001), dtype, i) for i in range(3)), random_array(1001, dtype, 3)]
    scales = {"row_scale": random_array(130, dtype, 4), "layer_scale": random_array(1001, dtype, 5)}
    return arrays, {"p": 0.1, "key": 5, "offset": 2**36 + 3} | scales


def fused_forward(name: str) -> Case:
    """With everything that it takes, and with as little as it takes."""

    def case(twin: Twin, dtype: Any) -> Any:
        forward = getattr(twin, f"{name}_forward")
        (x, residual, _, weight), options = fused_arguments(dtype)
        y, z, *_ = forward(x, p=0.5, key=5, z_out=None, training=False)
        assert z is None
        return [*forward(x, residual, weight, **options), y]

    return case


def fused_backward(name: str) -> Case:
    def case(twin: Twin, dtype: Any) -> Any:
        backward = getattr(twin, f"{name}_backward")
        (x, residual, dy, weight), options = fused_arguments(dtype)
        _, z, *statistics = getattr(pyreg.reference, f"{name}_forward")(x, residual, weight, **options)
        dx, dresidual, *_ = backward(dy, None, z, *statistics, p=0.5, key=5, dresidual_out=None)
        assert dresidual is None
        return [*backward(dy, x, z, *statistics, weight, x=x, **options), dx]

    return case


def softmax_dropout_arguments(dtype: Any) -> tuple[Any, dict[str, Any]]:
    """The scores, with a mask for keys that are padding."""
    mask = np.zeros((3, 1, 131), dtype)
    mask[1, 0, 77:] = -np.inf
    options = {"mask": mask, "p": 0.1, "key": 5, "offset": 2**36 + 3, "scale": 0.3, "causal": True}
    return random_array((3, 129, 131), dtype), options


def softmax_dropout_forward(twin: Twin, dtype: Any) -> Any:
    x, options = softmax_dropout_arguments(dtype)
    # The second is written past the caches.
    return *twin.softmax_dropout_forward(x, **options), *twin.softmax_dropout_forward(
        random_array((1100, 4099), dtype), p=0.5, key=5
    )


def softmax_dropout_backward(twin: Twin, dtype: Any) -> Any:
    x, options = softmax_dropout_arguments(dtype)
    _, *statistics = pyreg.reference.softmax_dropout_forward(x, **options)
    return (twin.softmax_dropout_backward(random_array(x.shape, dtype, 1), x, *statistics, **options),)


def activation_forward(name: str, *kinds: dict[str, Any]) -> Case:
    """Without a bias and with one, of each kind of the activation."""

    def case(twin: Twin, dtype: Any) -> Any:
        forward = getattr(twin, f"{name}_dropout_forward")
        x, bias = random_array((130, 1001), dtype), random_array(1001, dtype, 1)
        return [forward(x, b, p=0.1, key=5, offset=2**36 + 3, **kind) for b in (None, bias) for kind in kinds]

    return case


def activation_backward(name: str, *kinds: dict[str, Any]) -> Case:
    def case(twin: Twin, dtype: Any) -> Any:
        backward = getattr(twin, f"{name}_dropout_backward")
        x, dy, bias = (
            random_array((130, 1001), dtype),
            random_array((130, 1001), dtype, 1),
            random_array(1001, dtype, 2),
        )
        made = [backward(dy, x, bias, p=0.1, key=5, offset=2**36 + 3, **kind) for kind in kinds]
        return [*(array for pair in made for array in pair), backward(dy, x, p=0.5, key=5, **kinds[0])[0]]

    return case


def dropout(twin: Twin, dtype: Any) -> Any:
    x = random_array(2**20 + 77, dtype)
    dropped = [twin.dropout(x, p, key=2**63 + 5, offset=2**40 + 3) for p in (0.1, 0.5)]
    return [*dropped, twin.dropout(x, 0.1, key=1, training=False)]


def drop_path(twin: Twin, dtype: Any) -> Any:
    # One that is small, and one whose samples are cut into pieces.
    arrays = (random_array(shape, dtype) for shape in ((1001, 111), (30, 70_001)))
    return [twin.drop_path(x, 0.3, key=7, offset=2**32 - 9) for x in arrays]


def dropout_mask(twin: Twin, dtype: Any) -> Any:
    return [twin.dropout_mask(100_003, p, key=9, offset=7) for p in (1 / 3, 0.999)]


def l2_penalty(twin: Twin, dtype: Any) -> Any:
    return (twin.l2_penalty([random_array(100_003, dtype), random_array(7, dtype)], 0.1),)


def updated(update: Callable[..., None], dtype: Any, moments: int, *options: dict[str, Any]) -> Any:
    """A parameter and its moments after an update with each of the options."""
    param = random_array(100_003, dtype)
    state = [np.zeros_like(param) for _ in range(moments)]
    for step, changes in enumerate(options, start=1):
        update(param, random_array(100_003, dtype, step), *state, step=step, weight_decay=0.01, **changes)
    return [param, *state]


def sgd_update(twin: Twin, dtype: Any) -> Any:
    nesterov = {"momentum": 0.9, "nesterov": True}
    return updated(twin.sgd_update, dtype, 1, nesterov, nesterov, {"momentum": 0.9, "maximize": True})


def adam(name: str) -> Case:
    def case(twin: Twin, dtype: Any) -> Any:
        amsgrad = {"max_exp_avg_sq": np.zeros(100_003, dtype)}
        made = updated(getattr(twin, name), dtype, 2, {}, {"maximize": True}, amsgrad)
        return [*made, *amsgrad.values()]

    return case


GELU: tuple[dict[str, Any], ...] = ({"approximate": "none"}, {"approximate": "tanh"})

CASES: dict[str, Case] = {
    "layer_norm": layer_norm,
    "layer_norm_forward": layer_norm_forward,
    "layer_norm_backward": layer_norm_backward,
    "rms_norm": rms_norm,
    "rms_norm_forward": rms_norm_forward,
    "rms_norm_backward": rms_norm_backward,
    "dropout_add_layer_norm_forward": fused_forward("dropout_add_layer_norm"),
    "dropout_add_layer_norm_backward": fused_backward("dropout_add_layer_norm"),
    "dropout_add_rms_norm_forward": fused_forward("dropout_add_rms_norm"),
    "dropout_add_rms_norm_backward": fused_backward("dropout_add_rms_norm"),
    "softmax_dropout_forward": softmax_dropout_forward,
    "softmax_dropout_backward": softmax_dropout_backward,
    "gelu_dropout_forward": activation_forward("gelu", *GELU),
    "gelu_dropout_backward": activation_backward("gelu", *GELU),
    "relu_dropout_forward": activation_forward("relu", {}),
    "relu_dropout_backward": activation_backward("relu", {}),
    "silu_dropout_forward": activation_forward("silu", {}),
    "silu_dropout_backward": activation_backward("silu", {}),
    "drop_path": drop_path,
    "dropout": dropout,
    "dropout_mask": dropout_mask,
    "l2_penalty": l2_penalty,
    "sgd_update": sgd_update,
    "adam_update": adam("adam_update"),
    "adamw_update": adam("adamw_update"),
}


# --- known answers


def philox_answer() -> str:
    """Random123's vector for the digits of pi (kat_vectors, philox4x32 10)."""
    c0, c1, c2, c3 = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [0x03707344]], np.uint64)
    words = philox((c0, c1, c2, c3), (0xA4093822, 0x299F31D0))
    got = [f"{int(word[0]):08x}" for word in words]
    return "" if got == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"] else f"got {got}"


def mask_answer() -> str:
    """The first of tests/data/dropout_mask_v1.txt, which a program of plain integers made."""
    mask = pyreg.dropout_mask(64, 0.5, key=0)
    got = "".join("1" if kept else "0" for kept in mask)
    wanted = "1100110101011101111110101011010001101010100010100111100000110000"
    return "" if got == wanted else f"got {got}"


def layer_norm_answer() -> str:
    """Mean 5, variance 5."""
    y, mean, rstd = pyreg.layer_norm_forward(np.array([2.0, 4.0, 6.0, 8.0]), eps=0.0)
    right = mean == 5 and np.allclose(rstd, 5**-0.5, rtol=1e-15)
    right = right and np.allclose(y, np.array([-3.0, -1.0, 1.0, 3.0]) / 5**0.5, rtol=1e-15)
    return "" if right else f"got {y}, {mean}, {rstd}"


def adamw_answer() -> str:
    """The first step is one learning rate against the gradient's sign, and the decay."""
    param = np.array([1.0, -2.0])
    pyreg.adamw_update(param, np.array([0.5, -3.0]), np.zeros(2), np.zeros(2), step=1, lr=0.1, weight_decay=0.1)
    return "" if np.allclose(param, [0.89, -1.88], rtol=1e-7) else f"got {param}"


KNOWN_ANSWERS: dict[str, Callable[[], str]] = {
    "reference Philox4x32-10": philox_answer,
    "dropout_mask": mask_answer,
    "layer_norm_forward": layer_norm_answer,
    "adamw_update": adamw_answer,
}
