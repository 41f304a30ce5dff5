"""LayerNorm, dropout and weight decay for NumPy arrays on a CPU.

At memory speed, the same bits everywhere, and with a pure-Python twin of every function on arrays in
`pyreg.reference`.
"""

try:
    import pyreg._core as _core
except ModuleNotFoundError as error:
    if error.name != "pyreg._core":
        raise
    raise ImportError(
        f"this is pyreg's source tree, {__path__[0]!r}, which holds no compiled core: run "
        "`pip install .` in it once, and start Python in another folder (or `pip install -e .`); where it is "
        "installed, another folder is enough"
    ) from None

from pyreg import reference
from pyreg._adam import adam_update, adamw_update
from pyreg._config import show_config
from pyreg._drop_path import drop_path
from pyreg._dropout import dropout, dropout_mask
from pyreg._dropout_add_layer_norm import dropout_add_layer_norm_backward, dropout_add_layer_norm_forward
from pyreg._dropout_add_rms_norm import dropout_add_rms_norm_backward, dropout_add_rms_norm_forward
from pyreg._gelu_dropout import gelu_dropout_backward, gelu_dropout_forward
from pyreg._l2_penalty import l2_penalty
from pyreg._layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from pyreg._random_key import random_key
from pyreg._relu_dropout import relu_dropout_backward, relu_dropout_forward
from pyreg._rms_norm import rms_norm, rms_norm_backward, rms_norm_forward
from pyreg._sgd import sgd_update
from pyreg._silu_dropout import silu_dropout_backward, silu_dropout_forward
from pyreg._softmax_dropout import softmax_dropout_backward, softmax_dropout_forward
from pyreg._threads import get_num_threads, num_threads, set_num_threads

__version__ = _core.__version__

__all__ = [
    "adam_update",
    "adamw_update",
    "drop_path",
    "dropout",
    "dropout_add_layer_norm_backward",
    "dropout_add_layer_norm_forward",
    "dropout_add_rms_norm_backward",
    "dropout_add_rms_norm_forward",
    "dropout_mask",
    "gelu_dropout_backward",
    "gelu_dropout_forward",
    "get_num_threads",
    "l2_penalty",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "num_threads",
    "random_key",
    "reference",
    "relu_dropout_backward",
    "relu_dropout_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "set_num_threads",
    "sgd_update",
    "show_config",
    "silu_dropout_backward",
    "silu_dropout_forward",
    "softmax_dropout_backward",
    "softmax_dropout_forward",
]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
