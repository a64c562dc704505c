"""Hyperbolic geometry in Minkowski space with 160 digits, from the space parts of points and vectors alone.

Textbook formulas, which cancel: at radius 40 by 70 digits.
"""

import mpmath as mp

DIGITS = 160


def numbers(row):
    """A row of a tensor as exact numbers."""
    return [mp.mpf(a) for a in row.double().tolist()]


def dot(a, b):
    return mp.fsum(p * q for p, q in zip(a, b, strict=True))


def combine(*terms):
    """Sums of multiples: (number, vector), ..."""
    return [mp.fsum(c * v[i] for c, v in terms) for i in range(len(terms[0][1]))]


class Space:
    """Curvature K < 0; points and vectors are lists of n + 1 numbers, time first."""

    def __init__(self, curvature, digits=DIGITS):
        mp.mp.dps = digits
        self.R = 1 / mp.sqrt(-mp.mpf(curvature))

    def point(self, s):
        """From a space part."""
        return [mp.sqrt(self.R**2 + dot(s, s)), *s]

    def vector(self, x, v):
        """From a space part: tangent at x."""
        return [dot(x[1:], v) / x[0], *v]

    def origin(self, x):
        return [self.R] + [mp.mpf(0)] * (len(x) - 1)

    @staticmethod
    def product(a, b):
        return dot(a[1:], b[1:]) - a[0] * b[0]

    def norm(self, u):
        return mp.sqrt(abs(self.product(u, u)))

    def dist(self, x, y):
        return self.R * mp.acosh(max(mp.mpf(1), -self.product(x, y) / self.R**2))

    def exp(self, x, u):
        r = self.norm(u) / self.R
        return combine((mp.cosh(r), x), (mp.sinh(r) / r if r else mp.mpf(1), u))

    def log(self, x, y):
        r = self.dist(x, y) / self.R
        u = combine((1, y), (-mp.cosh(r), x))
        return combine((r / mp.sinh(r) if r else mp.mpf(1), u))

    def transport(self, x, y, v):
        factor = self.product(y, v) / (self.R**2 - self.product(x, y))
        return combine((1, v), (factor, x), (factor, y))

    def frame(self, x, u):
        """n coordinates of u in the frame carried from the origin to x."""
        return self.transport(x, self.origin(x), u)[1:]

    def from_frame(self, x, z):
        return self.transport(self.origin(x), x, [mp.mpf(0), *z])

    def gyroadd(self, x, y):
        o = self.origin(x)
        return self.exp(x, self.transport(o, x, self.log(o, y)))

    def inverse(self, x):
        return [x[0], *(-a for a in x[1:])]

    def dist_gradient(self, x, y):
        """Of the distance in the space part of x, the time derived."""
        factor = -1 / mp.sinh(self.dist(x, y) / self.R) / self.R
        return [factor * (b - y[0] / x[0] * a) for a, b in zip(x[1:], y[1:], strict=True)]

    def conorm(self, x, g):
        """Length of a covector given by its space part."""
        return mp.sqrt(dot(g, g) + (dot(x[1:], g) / self.R) ** 2)
