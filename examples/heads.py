"""What `01_grassmann_classifier.py` compares: heads and reference methods, all trained and tuned in one way."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import nn

from torchriemann.layers import GrassmannClassifier
from torchriemann.optim import RiemannianSGD, param_groups

SCALE = 25.0  # the inverse temperature of both heads that classify by angle


class CosineHead(nn.Linear):
    """Softmax on cosines: features and class vectors have unit length, there is no bias. ``*B,d -> *B,K``."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes, bias=False)

    def forward(self, x):
        normalize = nn.functional.normalize
        return SCALE * nn.functional.linear(normalize(x, dim=-1), normalize(self.weight, dim=-1))


class PrototypeHead(nn.Linear):
    """As many weights as a Grassmann head, without its geometry: the best of `count` linear scores a class."""

    def __init__(self, in_features: int, num_classes: int, count: int = 8) -> None:
        super().__init__(in_features, num_classes * count)
        self.count = count

    def forward(self, x):
        return super().forward(x).unflatten(-1, (-1, self.count)).amax(-1)


def grassmann(k: int):
    """The head under study, with k-dimensional subspaces."""
    return lambda in_features, num_classes: GrassmannClassifier(in_features, num_classes, k, scale=SCALE)


HEADS = {
    "softmax": nn.Linear,
    "cosine softmax": CosineHead,
    "max of 8 prototypes": PrototypeHead,
    "Grassmann k=1": grassmann(1),
    "Grassmann k=4": grassmann(4),
    "Grassmann k=8": grassmann(8),
}
LEARNING_RATES = (0.03, 0.1, 0.3, 1.0)


class ClasswisePCA:
    """CLAFIC (Watanabe 1967): the principal subspace of every class, computed and not trained; the longest projection
    decides."""

    def __init__(self, k: int) -> None:
        self.k = k

    def fit(self, x, y):
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        self.bases = [np.linalg.svd(unit[y == c], full_matrices=False)[2][: self.k] for c in np.unique(y)]
        return self

    def predict(self, x):
        return np.stack([np.linalg.norm(x @ basis.T, axis=1) for basis in self.bases], 1).argmax(1)


# As many settings each as there are learning rates.
REFERENCES = {
    "logistic regression": [LogisticRegression(C=c, max_iter=3000) for c in (0.3, 1.0, 3.0, 10.0)],
    "class-wise PCA (CLAFIC)": [ClasswisePCA(k) for k in (4, 8, 12, 16)],
    "1-nearest neighbour": [KNeighborsClassifier(1, metric=m) for m in ("euclidean", "cosine", "l1", "chebyshev")],
    "RBF-SVM": [SVC(C=c, gamma=gamma) for c in (1.0, 10.0) for gamma in ("scale", 0.1)],  # type: ignore  # sklearn's hints forget numbers
}


class Net(nn.Module):
    """A backbone and a head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x):
        return self.head(self.backbone(x))


def pixels_to_head(make_head, num_classes: int = 10) -> Net:
    """The head alone."""
    return Net(nn.Identity(), make_head(64, num_classes))


def mlp_to_head(make_head, num_classes: int = 10) -> Net:
    """64 inputs, 128 hidden units, 32 features; normalised, or heads that classify by angle want other step sizes."""
    backbone = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32), nn.BatchNorm1d(32))
    return Net(backbone, make_head(32, num_classes))


def train(make_net, x, y, lr: float, epochs: int, seed: int, batch_size: int = 64) -> Net:
    """A net trained by Riemannian SGD: one optimizer, one learning rate for subspaces and ordinary weights."""
    torch.manual_seed(seed)
    net = make_net()
    # Weight decay acts on the ordinary weights only: a subspace has no length to decay.
    optimizer = RiemannianSGD(param_groups(net), lr=lr, momentum=0.9, weight_decay=5e-4)
    batches = -(-len(x) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def accuracy(predicted, y) -> float:
    """Per cent."""
    return 100 * float((torch.as_tensor(predicted) == y).double().mean())


@torch.no_grad()
def net_accuracy(net: Net, x, y) -> float:
    """Per cent."""
    return accuracy(net(x).argmax(-1), y)


def select(settings, fit, score, x, y):
    """The setting that is best on a quarter of the training data, held out from `fit`. The first one wins a tie."""
    cut = len(x) * 3 // 4
    scores = [score(fit(setting, x[:cut], y[:cut]), x[cut:], y[cut:]) for setting in settings]
    return settings[int(np.argmax(scores))]
