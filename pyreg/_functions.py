"""The list of the functions on arrays."""

from pyreg._adam import adam_update as adam_update
from pyreg._adam import adamw_update as adamw_update
from pyreg._drop_path import drop_path as drop_path
from pyreg._dropout import dropout as dropout
from pyreg._dropout import dropout_mask as dropout_mask
from pyreg._dropout_add_layer_norm import dropout_add_layer_norm_backward as dropout_add_layer_norm_backward
from pyreg._dropout_add_layer_norm import dropout_add_layer_norm_forward as dropout_add_layer_norm_forward
from pyreg._dropout_add_rms_norm import dropout_add_rms_norm_backward as dropout_add_rms_norm_backward
from pyreg._dropout_add_rms_norm import dropout_add_rms_norm_forward as dropout_add_rms_norm_forward
from pyreg._gelu_dropout import gelu_dropout_backward as gelu_dropout_backward
from pyreg._gelu_dropout import gelu_dropout_forward as gelu_dropout_forward
from pyreg._l2_penalty import l2_penalty as l2_penalty
from pyreg._layer_norm import layer_norm as layer_norm
from pyreg._layer_norm import layer_norm_backward as layer_norm_backward
from pyreg._layer_norm import layer_norm_forward as layer_norm_forward
from pyreg._random_key import random_key as random_key
from pyreg._relu_dropout import relu_dropout_backward as relu_dropout_backward
from pyreg._relu_dropout import relu_dropout_forward as relu_dropout_forward
from pyreg._rms_norm import rms_norm as rms_norm
from pyreg._rms_norm import rms_norm_backward as rms_norm_backward
from pyreg._rms_norm import rms_norm_forward as rms_norm_forward
from pyreg._sgd import sgd_update as sgd_update
from pyreg._silu_dropout import silu_dropout_backward as silu_dropout_backward
from pyreg._silu_dropout import silu_dropout_forward as silu_dropout_forward
from pyreg._softmax_dropout import softmax_dropout_backward as softmax_dropout_backward
from pyreg._softmax_dropout import softmax_dropout_forward as softmax_dropout_forward
