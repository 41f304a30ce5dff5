"""The named tuples that functions with several results return. Their length is fixed; absent results are None."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[Any]  # float32, float64, float16 or ml_dtypes' bfloat16
Float64Array = npt.NDArray[np.float64]


class LayerNormForward(NamedTuple):
    y: FloatArray
    mean: Float64Array
    rstd: FloatArray


class LayerNormBackward(NamedTuple):
    dx: FloatArray
    dweight: FloatArray | None
    dbias: FloatArray | None


class RmsNormForward(NamedTuple):
    y: FloatArray
    rstd: FloatArray


class RmsNormBackward(NamedTuple):
    dx: FloatArray
    dweight: FloatArray | None


class DropoutAddLayerNormForward(NamedTuple):
    y: FloatArray
    z: FloatArray | None
    mean: Float64Array
    rstd: FloatArray


class DropoutAddLayerNormBackward(NamedTuple):
    dx: FloatArray
    dresidual: FloatArray | None
    dweight: FloatArray | None
    dbias: FloatArray | None
    dlayer_scale: FloatArray | None


class DropoutAddRmsNormForward(NamedTuple):
    y: FloatArray
    z: FloatArray | None
    rstd: FloatArray


class DropoutAddRmsNormBackward(NamedTuple):
    dx: FloatArray
    dresidual: FloatArray | None
    dweight: FloatArray | None
    dlayer_scale: FloatArray | None


class SoftmaxDropoutForward(NamedTuple):
    y: FloatArray
    maximum: FloatArray
    rsum: FloatArray


class RowsGradient(NamedTuple):
    """The gradient of some rows of a parameter, each once: rows (M,), grad (M, ...)."""

    rows: npt.NDArray[np.int64]
    grad: FloatArray


class ActivationDropoutBackward(NamedTuple):
    dx: FloatArray
    dbias: FloatArray | None
