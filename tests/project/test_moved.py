"""Files written before modules had folders by family are read as ever."""

import importlib
import pickle
from pathlib import Path

import pytest
import torch

from torchriemann import Lorentz, PoincareBall, layers, optim
from torchriemann.moved import MOVED

FILES = Path(__file__).with_name("files_before_moves")  # written by the last commit before the moves

# Options that manifolds have got since, at their defaults.
ADDED = {"PoincareBall(curvature=-0.3)": "PoincareBall(curvature=-0.3, retraction='exp')"}


def held(stored):
    assert [repr(m) for m in stored["manifolds"]] == [ADDED.get(name, name) for name in stored["reprs"]]
    ball = next(m for m in stored["manifolds"] if isinstance(m, PoincareBall))
    assert ball == PoincareBall(-0.3) and hash(ball) == hash(PoincareBall(-0.3))


def model_and_loss(stored):
    model = torch.nn.ModuleDict(
        {
            "head": layers.GrassmannClassifier(5, 3, 2),
            "isometry": layers.LorentzIsometry(3),
            "tangent": layers.LorentzIsometry(3, "tangent"),
            "curvature": layers.Curvature(-0.7),
        }
    )

    def loss():
        m, points = Lorentz(-0.7), stored["points"]
        images = model["isometry"](points, m).square().sum() + model["tangent"](points, m).square().sum()
        return model["head"](stored["x"]).logsumexp(-1).sum() + images + model["curvature"]().square()

    return model, loss


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_is_the_same_module(old):
    assert importlib.import_module(f"torchriemann.{old}") is importlib.import_module(f"torchriemann.{MOVED[old]}")


@pytest.mark.parametrize("weights_only", [True, False])
def test_manifolds(weights_only):
    stored = torch.load(FILES / "manifolds.pt", weights_only=weights_only)
    held(stored)


def test_pickled_manifolds():
    stored = pickle.loads((FILES / "manifolds.pkl").read_bytes())
    held(stored)


@pytest.mark.parametrize("weights_only", [True, False])
def test_parameters(weights_only):
    for p in torch.load(FILES / "parameters.pt", weights_only=weights_only):
        assert p.manifold.check_point_on_manifold(p.detach())


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_training_run_goes_on(name):
    stored = torch.load(FILES / "training.pt", weights_only=True)
    model, loss = model_and_loss(stored)
    model.load_state_dict(stored["model"])
    torch.testing.assert_close(loss().detach(), stored["loss"])
    torch.testing.assert_close(model["head"](stored["x"]).detach(), stored["logits"])
    torch.testing.assert_close(model["isometry"](stored["points"], Lorentz(-0.7)).detach(), stored["images"])
    torch.testing.assert_close(model["tangent"](stored["points"], Lorentz(-0.7)).detach(), stored["tangent_images"])
    cls = {"adam": optim.RiemannianAdam, "sgd": optim.RiemannianSGD}[name]
    optimizer = cls(optim.param_groups(model), lr=1e-3)
    optimizer.load_state_dict(stored["optimizers"][name])
    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before


def test_whole_modules_and_optimizers():
    stored = torch.load(FILES / "modules.pt", weights_only=False)
    training = torch.load(FILES / "training.pt", weights_only=True)
    logits = stored["model"]["head"](training["x"])
    torch.testing.assert_close(logits.detach(), training["logits"])
    images = stored["model"]["tangent"](training["points"], Lorentz(-0.7))
    torch.testing.assert_close(images.detach(), training["tangent_images"])
    assert stored["cones"].manifold == Lorentz(-0.3)
    for name in ("adam", "lbfgs", "cg", "trust_region", "landing"):
        assert isinstance(stored[name], torch.optim.Optimizer)
