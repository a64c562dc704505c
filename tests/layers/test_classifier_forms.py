"""The Grassmann head in both forms: on the manifold, and in normal coordinates."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate

from torchriemann.layers import GrassmannClassifier
from torchriemann.layers.class_parallel import ClassParallel
from torchriemann.manifolds import Grassmann

F64 = torch.float64


def test_both_forms_compute_the_same():
    on_manifold = GrassmannClassifier(7, 4, 3, dtype=F64)
    tangent = GrassmannClassifier(7, 4, 3, parametrization="tangent", dtype=F64)
    assert type(tangent.weight) is nn.Parameter and tangent.weight.shape == (4, 4, 3)
    tangent.set_point("weight", on_manifold.weight)
    torch.testing.assert_close(
        Grassmann().projector(tangent.point("weight")), Grassmann().projector(on_manifold.weight), atol=1e-13, rtol=0
    )
    x = torch.randn(20, 7, dtype=F64)
    torch.testing.assert_close(tangent(x), on_manifold(x), atol=1e-12, rtol=0)
    half = tangent.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), on_manifold(x), atol=1.0, rtol=0)  # of 25, at eps = 1/128


def test_the_tangent_form_starts_from_the_invariant_law():
    torch.manual_seed(0)
    bases = GrassmannClassifier(6, 4000, 2, parametrization="tangent").point("weight").detach()
    # Under the invariant law the mean projector is k/d times the identity; an entry of it deviates by less than 0.5.
    torch.testing.assert_close((bases @ bases.mT).mean(0), torch.eye(6) / 3, atol=4 * 0.5 / 4000**0.5, rtol=0)


def test_any_optimizer_learns_subspaces_in_the_tangent_form():
    generator = torch.Generator().manual_seed(0)
    truth = Grassmann().random_uniform(3, 12, 2, generator=generator)
    y = torch.arange(3).repeat(40)
    x = (truth[y] @ torch.randn(120, 2, 1, generator=generator)).squeeze(-1)
    torch.manual_seed(0)
    classifier = GrassmannClassifier(12, 3, 2, parametrization="tangent")
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(classifier(x), y).backward()
        optimizer.step()
    assert (classifier(x).argmax(-1) == y).all()


def test_a_class_that_is_all_of_the_space():
    classifier = GrassmannClassifier(3, 2, 3, parametrization="tangent")
    assert classifier.weight.shape == (2, 0, 3)
    torch.testing.assert_close(classifier(torch.randn(5, 3)), torch.full((5, 2), 25.0))


def test_errors():
    with pytest.raises(ValueError, match="GrassmannClassifier: parametrization must be one of"):
        GrassmannClassifier(7, 4, 3, parametrization="normal")
    classifier = GrassmannClassifier(7, 4, 3, parametrization="tangent")
    with pytest.raises(ValueError, match="ClassParallel: the head has parametrization='tangent'; make one with"):
        ClassParallel(input_layouts=Replicate())._apply(classifier, None)  # type: ignore[arg-type]
