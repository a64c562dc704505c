"""Operators of the dispatcher: one node to compilers, one call to vmap, nothing to autograd."""

import operator

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import jacrev, jvp, vmap

from torchriemann.manifolds.functional.operators import Operand, define

CALLS = []


def _run(matrix, vector, offset, sweeps, scale):
    """A product and a squared length, by a loop that no tracer could read."""
    CALLS.append(matrix.shape)
    offset = 0.0 if offset is None else float(offset)
    total = torch.zeros_like(matrix @ vector[..., None])
    for _ in range(sweeps):
        total = total + scale * (matrix @ vector[..., None]) + offset
    return total.squeeze(-1), total.double().square().sum((-2, -1))


def _results(matrix, vector, offset, sweeps, scale):
    batch = torch.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    return matrix.new_empty((*batch, matrix.shape[-2])), matrix.new_empty(batch, dtype=torch.float64)


product = define(
    "test_product",
    _run,
    (Operand("matrix", 2), Operand("vector", 1), Operand("offset", 0, shared=True)),
    _results,
    numbers={"sweeps": int, "scale": float},
    count=2,
)
rows = define(
    "test_reversed", lambda x: x.flip(-1).mT.contiguous().mT, (Operand("x", 2),), lambda x: x.new_empty(x.shape)
)


def expected(matrix, vector, offset=0.0, sweeps=3, scale=0.5):
    value = sweeps * (scale * torch.einsum("...ij,...j->...i", matrix, vector) + offset)
    return value, value.double().square().sum(-1)


def draw(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)), dtype=torch.float64)


def call(matrix, vector, offset=None):
    return product(matrix.detach(), vector.detach(), offset, 3, 0.5)


M, V, W = draw(5, 2, 3), draw(5, 3), draw(4, 3)


@pytest.mark.parametrize("offset", [None, torch.tensor(0.3, dtype=torch.float64)], ids=["none", "offset"])
@pytest.mark.parametrize("batch", [(), (5,), (0,)])
def test_keeps_the_rules_of_the_dispatcher(offset, batch):
    arguments = (draw(*batch, 2, 3), draw(*batch, 3), offset, 3, 0.5)
    assert set(torch.library.opcheck(product, arguments).values()) == {"SUCCESS"}
    torch.testing.assert_close(
        product(*arguments), expected(arguments[0], arguments[1], 0.0 if offset is None else offset)
    )


def test_results_are_contiguous():
    x = draw(4, 3, 2)
    assert set(torch.library.opcheck(rows, (x,)).values()) == {"SUCCESS"}
    assert rows(x).is_contiguous() and torch.equal(rows(x), x.flip(-1))


def test_meta():
    value, size = product(M.to("meta"), V.to("meta"), None, 3, 0.5)
    assert value.shape == (5, 2) and size.shape == (5,) and size.dtype == torch.float64 and value.is_meta


MAPPED = {
    "both": lambda f: vmap(f)(M, V),
    "one": lambda f: vmap(f, (0, None))(M, V[0]),
    "the other": lambda f: vmap(f, (None, 0))(M[0], V),
    "columns": lambda f: vmap(f, (1, None))(M.movedim(0, 1), V[0]),
    "batched, and one without": lambda f: vmap(f, (0, None))(draw(4, 5, 2, 3), V),
    "fewer leading dimensions": lambda f: vmap(f)(draw(4, 5, 2, 3), draw(4, 3)),
    "more leading dimensions": lambda f: vmap(f)(draw(4, 2, 3), draw(4, 5, 3)),
    "vmap of vmap": lambda f: vmap(vmap(f, (None, 0)), (0, None))(M, W),
}


@pytest.mark.parametrize("mapped", MAPPED)
def test_vmap_is_one_call_of_a_larger_batch(mapped):
    CALLS.clear()
    actual = MAPPED[mapped](call)
    assert len(CALLS) == 1
    torch.testing.assert_close(actual, MAPPED[mapped](expected))


def test_vmap_over_a_shared_operand():
    offsets = torch.linspace(-1, 1, 4, dtype=torch.float64)
    actual = vmap(lambda m, o: call(m, V[0], o), (0, 0))(M[:4], offsets)
    torch.testing.assert_close(actual, vmap(lambda m, o: expected(m, V[0], o))(M[:4], offsets))


def loss(f):
    """A function of the results and of the operands, which the detached results do not differentiate."""
    return lambda m, v: (f(m.detach(), v.detach())[0].sum() * (m.square().sum() + v.sum())).sin()


TRANSFORMS = {
    "value": lambda f: f(M, V),
    "vmap": lambda f: vmap(f, (0, None))(M, V[0]),
    "vmap of vmap": lambda f: vmap(vmap(f, (None, 0)), (0, None))(M, W),
    "jvp": lambda f: jvp(loss(f), (M, V), (M.cos(), V.cos())),
    "jvp of vmap": lambda f: jvp(lambda m, v: vmap(loss(f))(m, v), (M, V), (M.cos(), V.cos())),
    "gradient": lambda f: jacrev(loss(f), (0, 1))(M, V),
    "vmap of gradient": lambda f: vmap(jacrev(loss(f)), (0, None))(M, V[0]),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms(transform, compiled):
    def run():
        return TRANSFORMS[transform](call)

    if compiled:
        run = torch.compile(run, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(), TRANSFORMS[transform](expected))


def test_is_one_node_with_a_free_batch():
    class Product(torch.nn.Module):
        def forward(self, matrix, vector):
            return call(matrix, vector)

    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Product(), (M, V), dynamic_shapes={"matrix": {0: batch}, "vector": {0: batch}})
    assert sum("test_product" in str(node.target) for node in program.graph.nodes) == 1
    torch.testing.assert_close(program.module()(draw(7, 2, 3), draw(7, 3)), expected(draw(7, 2, 3), draw(7, 3)))


def test_dynamic_shapes_compile_once():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(call, backend=counter, fullgraph=True, dynamic=True)
    for size in (4, 5, 8):
        torch.testing.assert_close(compiled(draw(size, 2, 3), draw(size, 3)), expected(draw(size, 2, 3), draw(size, 3)))
    assert counter.frame_count == 1


def test_what_it_does_is_not_traced():
    def lazily():
        yield product(M, V, None, 3, 0.5)

    def consume(values):
        torch._dynamo.graph_break()
        return [*values]

    targets = []

    def backend(graph, _):
        targets.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph

    # dynamo skips the frame of a generator made outside, and looks at what is called from there; from 2.15 on it enters
    # the generator.
    value = torch.compile(consume, backend=backend)(lazily())
    torch.testing.assert_close(value[0], expected(M, V))
    assert set(targets) <= {product, operator.getitem}


def test_a_name_is_defined_once():
    with pytest.raises(RuntimeError, match="test_product"):
        define("test_product", _run, (Operand("matrix", 2),), _results)
