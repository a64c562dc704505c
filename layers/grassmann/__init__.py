"""Layers of networks on subspaces."""

from .maps import FRMap as FRMap
from .maps import ReOrth as ReOrth
from .projectors import GrassmannPool as GrassmannPool
from .projectors import OrthMap as OrthMap
from .projectors import ProjMap as ProjMap
