"""Manifolds that are made of others."""

from .low_rank_psd import LowRankPSD as LowRankPSD
from .power import Power as Power
from .product import Product as Product
from .scaled import Scaled as Scaled
