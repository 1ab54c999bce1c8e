"""A multilayer perceptron on a table whose last column is a whole-number class.

Every choice comes from `ar.params`, so that variants of an experiment differ by nothing else. The seed's streams
draw the split, the order of the examples and the noise of dropout; the weights at the start come from PyTorch's own
generator, which was seeded before this program could use it.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import autoresearch as ar

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}


class Dropout(nn.Module):
    """Dropout whose noise comes from its own stream, so that it moves neither the weights nor the order."""

    def __init__(self, rate, generator):
        super().__init__()
        self.rate = rate
        self.generator = generator

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape, generator=self.generator) >= self.rate
        return x * keep / (1.0 - self.rate)


class Block(nn.Module):
    """Linear, normalisation, activation, dropout; with a residual connection around it where asked for."""

    def __init__(self, inputs, width, norm, activation, dropout, residual):
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.residual = residual if inputs == width else "none"
        norm_size = inputs if self.residual == "pre" else width
        if norm == "batch":
            self.norm = nn.BatchNorm1d(norm_size)
        elif norm == "layer":
            self.norm = nn.LayerNorm(norm_size)
        else:
            self.norm = nn.Identity()
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, x):
        if self.residual == "pre":
            return x + self.dropout(self.activation(self.linear(self.norm(x))))
        if self.residual == "post":
            return self.norm(x + self.dropout(self.activation(self.linear(x))))
        return self.dropout(self.activation(self.norm(self.linear(x))))


class Mlp(nn.Module):
    def __init__(self, inputs, classes, width, depth, norm, activation, dropout, residual):
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.blocks = nn.ModuleList(
            Block(before, after, norm, activation, dropout, residual) for before, after in zip(sizes, sizes[1:])
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def norm_name(params):
    """`normalisation` names one; `batch_norm` and `layer_norm` switch one on."""
    if "normalisation" in params:
        return params["normalisation"]
    if params.get("batch_norm", False):
        return "batch"
    return "layer" if params.get("layer_norm", False) else "none"


def make_optimizer(model, params):
    name, lr, decay = params["optimizer"], params["lr"], params.get("weight_decay", 0.0)
    weights = model.parameters()
    if name == "sgd":
        return torch.optim.SGD(weights, lr=lr, weight_decay=decay)
    if name == "momentum":
        return torch.optim.SGD(weights, lr=lr, momentum=0.9, weight_decay=decay)
    if name == "adam":
        return torch.optim.Adam(weights, lr=lr, weight_decay=decay)
    if name == "adamw":
        return torch.optim.AdamW(weights, lr=lr, weight_decay=decay)
    if name == "rmsprop":
        return torch.optim.RMSprop(weights, lr=lr, weight_decay=decay)
    raise ValueError(f"optimizer: no such optimiser: {name}")


def lr_factor(schedule, step, steps, warmup):
    """What the learning rate is multiplied by at a step, counted from 0."""
    if schedule == "warmup":
        warmup = max(warmup, steps // 10)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "linear":
        return 1.0 - done
    if schedule == "step":
        return 0.1 if done >= 0.7 else 1.0
    return 1.0


def load_split(params):
    """Test examples are drawn first, so that they are the same whatever is done with the rest."""
    table = np.loadtxt(ar.dataset(params["data_set"]), delimiter=",", dtype=np.float32)
    inputs, labels = table[:, :-1], table[:, -1].astype(np.int64)
    order = ar.generator("split").permutation(len(table))
    test = order[: params["test_size"]]
    validation = order[params["test_size"] : params["test_size"] + params["validation_size"]]
    train = order[params["test_size"] + params["validation_size"] :][: params["train_size"]]
    mean, deviation = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    inputs = (inputs - mean) / np.where(deviation > 0.0, deviation, 1.0)
    pick = lambda rows: (torch.from_numpy(inputs[rows]), torch.from_numpy(labels[rows]))
    return pick(train), pick(validation), pick(test), int(labels.max()) + 1


@torch.no_grad()
def evaluate(model, data):
    """Loss in nats and accuracy as a fraction; no number where the model gives none."""
    model.eval()
    logits = model(data[0])
    model.train()
    if not bool(torch.isfinite(logits).all()):
        return math.nan, math.nan
    loss = F.cross_entropy(logits, data[1]).item()
    return loss, (logits.argmax(dim=1) == data[1]).float().mean().item()


def main():
    params = ar.params
    steps = 5 if ar.smoke else params["steps"]
    warmup = params.get("warmup", 0)
    every = max(1, steps // params.get("evaluations", 20))
    train, validation, test, classes = load_split(params)

    dropout = Dropout(params.get("dropout", 0.0), ar.torch_generator("dropout"))
    model = Mlp(
        train[0].shape[1],
        classes,
        params["width"],
        params["depth"],
        norm_name(params),
        params["activation"],
        dropout,
        params.get("residual", "none"),
    )
    optimizer = make_optimizer(model, params)
    order = ar.generator("order")
    batch = params["batch_size"]
    rows = np.empty(0, dtype=np.int64)

    recent = []
    for step in range(1, steps + 1):
        if len(rows) < batch:
            rows = order.permutation(len(train[0]))
        chosen, rows = torch.from_numpy(rows[:batch]), rows[batch:]
        for group in optimizer.param_groups:
            group["lr"] = params["lr"] * lr_factor(params["schedule"], step - 1, steps, warmup)
        loss = F.cross_entropy(model(train[0][chosen]), train[1][chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent.append(loss.detach())
        if step % every == 0 or step == steps:
            train_loss = torch.stack(recent).mean().item()
            recent = []
            val_loss, val_accuracy = evaluate(model, validation)
            ar.log(step=step, train_loss=train_loss, val_loss=val_loss, val_accuracy=val_accuracy)

    # The test examples are read once, at the end, and only by an experiment that was registered to read them.
    if params["evaluate"] == "test":
        test_loss, test_accuracy = evaluate(model, test)
        ar.log(step=steps, test_loss=test_loss, test_accuracy=test_accuracy)


main()
