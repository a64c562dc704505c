"""Operations with fused kernels, of the same signatures as the plain formulas on which they fall back."""

from .cholesky import cholesky as cholesky
from .cholesky import cholesky_difference as cholesky_difference
from .cholesky import cholesky_dist as cholesky_dist
from .cholesky import cholesky_exp as cholesky_exp
from .cholesky import cholesky_log as cholesky_log
from .cholesky import cholesky_with_inverse as cholesky_with_inverse
from .klein import klein_dist as klein_dist
from .klein import klein_log as klein_log
from .lorentz import lorentz_dist as lorentz_dist
from .lorentz import lorentz_exp as lorentz_exp
from .lorentz import lorentz_log as lorentz_log
from .lorentz import lorentz_transport as lorentz_transport
from .poincare import poincare_dist as poincare_dist
from .poincare import poincare_exp as poincare_exp
from .poincare import poincare_log as poincare_log
from .poincare import poincare_retr as poincare_retr
from .poincare import poincare_transport as poincare_transport
from .projected_sphere import projected_dist as projected_dist
from .projected_sphere import projected_exp as projected_exp
from .sphere import sphere_dist as sphere_dist
from .sphere import sphere_dist2 as sphere_dist2
from .sphere import sphere_exp as sphere_exp
from .sphere import sphere_log as sphere_log
from .sphere import sphere_transport as sphere_transport
from .switch import use_kernels as use_kernels
