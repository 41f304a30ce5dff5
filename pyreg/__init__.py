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
from pyreg._config import show_config as show_config
from pyreg._functions import *  # noqa: F403
from pyreg._threads import get_num_threads as get_num_threads
from pyreg._threads import num_threads as num_threads
from pyreg._threads import set_num_threads as set_num_threads

__version__ = _core.__version__

__all__ = [
    *reference.__all__,
    "get_num_threads",
    "num_threads",
    "reference",
    "set_num_threads",
    "show_config",
]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return [*__all__, "__version__"]
