"""Every function of pyreg on arrays in Python and NumPy, to be read and to be held against.

Same names, same arguments, same errors, and the same bits. Each file here mirrors the one of its name in
csrc/kernels: same functions, same order of arithmetic.
"""

from pyreg._random_key import random_key
from pyreg.reference.activation_dropout import (
    gelu_dropout_backward,
    gelu_dropout_forward,
    relu_dropout_backward,
    relu_dropout_forward,
    silu_dropout_backward,
    silu_dropout_forward,
)
from pyreg.reference.adam import adam_update, adamw_update
from pyreg.reference.drop_path import drop_path
from pyreg.reference.dropout import dropout, dropout_mask
from pyreg.reference.dropout_add_norm import (
    dropout_add_layer_norm_backward,
    dropout_add_layer_norm_forward,
    dropout_add_rms_norm_backward,
    dropout_add_rms_norm_forward,
)
from pyreg.reference.l2_penalty import l2_penalty
from pyreg.reference.layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from pyreg.reference.rms_norm import rms_norm, rms_norm_backward, rms_norm_forward
from pyreg.reference.sgd import sgd_update
from pyreg.reference.softmax_dropout import softmax_dropout_backward, softmax_dropout_forward

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
    "l2_penalty",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "random_key",
    "relu_dropout_backward",
    "relu_dropout_forward",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "sgd_update",
    "silu_dropout_backward",
    "silu_dropout_forward",
    "softmax_dropout_backward",
    "softmax_dropout_forward",
]
