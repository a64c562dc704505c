"""Spaces of constant sectional curvature, one file a model."""

from .conversions import change_curvature as change_curvature
from .conversions import convert as convert
from .klein import Klein as Klein
from .lorentz import Lorentz as Lorentz
from .model import ConstantCurvature as ConstantCurvature
from .oblique import Oblique as Oblique
from .sphere import Sphere as Sphere
from .stereographic import PoincareBall as PoincareBall
from .stereographic import ProjectedSphere as ProjectedSphere
from .stereographic import Stereographic as Stereographic
