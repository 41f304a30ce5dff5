"""LayerNorm, dropout and weight decay for NumPy arrays on a CPU.

The functions run at memory speed and return the same bits everywhere. `pyreg.reference` has a pure-Python twin of
every function on arrays.
"""

try:
    import pyreg._core as _core
except ModuleNotFoundError as error:
    if error.name != "pyreg._core":
        raise
    raise ImportError(
        f"this is pyreg's source tree ({__path__[0]!r}), which has no compiled core: run `pip install .` at its "
        "root, then start Python in another folder (or run `pip install -e .`); if pyreg is already installed, "
        "start Python in another folder"
    ) from None

from pyreg import reference
from pyreg._config import show_config as show_config
from pyreg._functions import *  # noqa: F403
from pyreg._optimizers import SGD as SGD
from pyreg._optimizers import Adam as Adam
from pyreg._optimizers import AdamW as AdamW
from pyreg._param_groups import decay_matrices_only as decay_matrices_only
from pyreg._schedules import warmup_cosine as warmup_cosine
from pyreg._schedules import warmup_linear as warmup_linear
from pyreg._threads import get_num_threads as get_num_threads
from pyreg._threads import num_threads as num_threads
from pyreg._threads import set_num_threads as set_num_threads

__version__ = _core.__version__

__all__ = [
    *reference.__all__,
    "decay_matrices_only",
    "get_num_threads",
    "num_threads",
    "reference",
    "set_num_threads",
    "show_config",
    "warmup_cosine",
    "warmup_linear",
]


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return [*__all__, "__version__"]
