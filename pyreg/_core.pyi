from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from pyreg._check import FloatArray

__version__: str
compiler: str

def isa_built() -> list[str]: ...
def isa_found() -> list[str]: ...
def isa_chosen() -> str: ...
def use_isa(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def set_scoped_num_threads(threads: int) -> int: ...
def openmp_runtime() -> str: ...
def first_overlap(*args: npt.NDArray[Any] | None) -> tuple[int, int] | None: ...
def first_conflict(out: npt.NDArray[Any], arrays: tuple[npt.NDArray[Any] | None, ...], may_be: int) -> int | None: ...
def are_streamable(first: object, required: int, /, *others: object) -> TypeGuard[FloatArray]: ...
def is_good_out(out: object, arrays: tuple[npt.NDArray[Any] | None, ...], may_be: int) -> TypeGuard[FloatArray]: ...
def are_updatable(grad: object, required: int, /, *others: object) -> TypeGuard[FloatArray]: ...
def layer_norm_forward(
    x: FloatArray,
    n: int,
    weight: FloatArray | None,
    bias: FloatArray | None,
    eps: float,
    y: FloatArray,
    mean: FloatArray | None,
    rstd: FloatArray | None,
) -> None: ...
def layer_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    mean: FloatArray,
    rstd: FloatArray,
    weight: FloatArray | None,
    n: int,
    dx: FloatArray,
    dweight: FloatArray | None,
    dbias: FloatArray | None,
) -> None: ...
def rms_norm_forward(
    x: FloatArray, n: int, weight: FloatArray | None, eps: float, y: FloatArray, rstd: FloatArray | None
) -> None: ...
def rms_norm_backward(
    dy: FloatArray,
    x: FloatArray,
    rstd: FloatArray,
    weight: FloatArray | None,
    n: int,
    dx: FloatArray,
    dweight: FloatArray | None,
) -> None: ...
def dropout_add_norm_forward(
    x: FloatArray,
    residual: FloatArray | None,
    weight: FloatArray | None,
    bias: FloatArray | None,
    row_scale: FloatArray | None,
    layer_scale: FloatArray | None,
    n: int,
    threshold: int,
    key: int,
    index: int,
    eps: float,
    y: FloatArray,
    z: FloatArray | None,
    mean: FloatArray | None,
    rstd: FloatArray,
) -> None: ...
def dropout_add_norm_backward(
    dy: FloatArray,
    dz: FloatArray | None,
    z: FloatArray,
    mean: FloatArray | None,
    rstd: FloatArray,
    weight: FloatArray | None,
    row_scale: FloatArray | None,
    layer_scale: FloatArray | None,
    x: FloatArray | None,
    n: int,
    threshold: int,
    key: int,
    index: int,
    dx: FloatArray,
    dresidual: FloatArray | None,
    dweight: FloatArray | None,
    dbias: FloatArray | None,
    dlayer_scale: FloatArray | None,
) -> None: ...
def dropout(x: FloatArray, threshold: int, key: int, index: int, y: FloatArray) -> None: ...
def drop_path(x: FloatArray, samples: int, threshold: int, key: int, index: int, y: FloatArray) -> None: ...
def dropout_mask(kept: npt.NDArray[np.bool_], threshold: int, key: int, index: int) -> None: ...
def adam(
    param: FloatArray,
    grad: FloatArray,
    exp_avg: FloatArray,
    exp_avg_sq: FloatArray,
    max_exp_avg_sq: FloatArray | None,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool,
) -> None: ...
def sgd(
    param: FloatArray,
    grad: FloatArray,
    momentum_buffer: FloatArray | None,
    first_step: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None: ...
def copy(source: FloatArray, target: FloatArray, streaming: bool) -> None: ...
def update_loop(param: FloatArray, grad: FloatArray, exp_avg: FloatArray, exp_avg_sq: FloatArray) -> None: ...
def sum_of_squares(x: FloatArray) -> float: ...
def activation_dropout_forward(
    activation: str, x: FloatArray, bias: FloatArray | None, threshold: int, key: int, index: int, y: FloatArray
) -> None: ...
def activation_dropout_backward(
    activation: str,
    dy: FloatArray,
    x: FloatArray,
    bias: FloatArray | None,
    threshold: int,
    key: int,
    index: int,
    dx: FloatArray,
    dbias: FloatArray | None,
) -> None: ...
def softmax_dropout_forward(
    x: FloatArray,
    mask: FloatArray | None,
    lengths: Sequence[int],
    steps: Sequence[int],
    queries: int,
    scale: float,
    threshold: int,
    key: int,
    index: int,
    y: FloatArray,
    maximum: FloatArray,
    rsum: FloatArray,
) -> None: ...
def softmax_dropout_backward(
    dy: FloatArray,
    x: FloatArray,
    maximum: FloatArray,
    rsum: FloatArray,
    mask: FloatArray | None,
    lengths: Sequence[int],
    steps: Sequence[int],
    queries: int,
    scale: float,
    threshold: int,
    key: int,
    index: int,
    dx: FloatArray,
) -> None: ...
def exponential(x: FloatArray, y: FloatArray) -> None: ...
