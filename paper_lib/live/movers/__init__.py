"""Movers by name. One of your own is an object of a subclass of ``Mover``, entered in ``MOVERS``.

``optimiser: {mover: NAME}`` in a sweep names it. Its own settings are its fields; those that movers share are in
``config.Optimiser``.
"""

from .adamw import AdamW
from .base import Mover
from .lbfgs import LBFGS

MOVERS: dict[str, Mover] = {"adamw": AdamW(), "lbfgs": LBFGS()}

__all__ = ["LBFGS", "MOVERS", "AdamW", "Mover"]
