"""Contracted second divided differences against 60 digits."""

import mpmath as mp
import pytest
import torch

from torchriemann.manifolds.functional.second_products import second_product
from torchriemann.manifolds.functional.spectral_functions import EXP, INVERSE_SQRT, LOG, POSITIVE_PART, RECIPROCAL, SQRT

FUNCTIONS = {
    LOG: mp.log,
    EXP: mp.exp,
    SQRT: mp.sqrt,
    INVERSE_SQRT: lambda z: 1 / mp.sqrt(z),
    RECIPROCAL: lambda z: 1 / z,
}
SPECTRA = {
    "wide": [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3],
    "close": [1.0, 1.0, 1 + 1e-9, 1 + 1e-3, 1.05, 1.2],
    "clusters": [1e-4, 1.0001e-4, 1.13e-4, 1.0, 1.0, 1.124],
    "next to the width": [1.0, 1.1249, 1.1251, 1.25, 2.0, 2.26],
}


def difference(f, points):
    """f[a, b, c], of points kept apart by what 60 digits do not see in the quotients."""
    points = [mp.mpf(p) + i * mp.mpf(10) ** -20 for i, p in enumerate(points)]
    table = [f(p) for p in points]
    for k in (1, 2):
        table = [(table[i + 1] - table[i]) / (points[i + k] - points[i]) for i in range(len(table) - 1)]
    return table[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.key)
def test_products_of_matrices_have_the_digits_of_the_table(f, spectrum, dtype):
    a = torch.tensor(SPECTRA[spectrum], dtype=dtype)
    a = a.log() if f is EXP else a
    g, h = torch.randn(2, len(a), len(a), generator=torch.Generator().manual_seed(1), dtype=dtype)
    g, h = g + g.mT, h + h.mT
    product = second_product(f)
    assert product is not None
    found = product(a, g, h).tolist()
    numbers, gs, hs = a.tolist(), g.tolist(), h.tolist()
    with mp.workdps(60):
        for i, first in enumerate(numbers):
            for j, last in enumerate(numbers):
                terms = [
                    difference(FUNCTIONS[f], (first, middle, last)) * mp.mpf(gs[i][k]) * mp.mpf(hs[k][j])
                    for k, middle in enumerate(numbers)
                ]
                error = abs(mp.mpf(found[i][j]) - mp.fsum(terms)) / mp.fsum(map(abs, terms))
                assert error < 64 * torch.finfo(dtype).eps, (first, last, float(error))


def test_others_take_the_table():
    assert second_product(POSITIVE_PART) is None
