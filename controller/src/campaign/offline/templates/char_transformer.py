"""A small transformer that predicts the next character of a text, whatever stands before it inside a window.

Every choice comes from `ar.params`, so that variants of an experiment differ by nothing else. The seed's streams
draw which parts of the text are for training, the windows of each batch and the noise of dropout; the weights at
the start come from PyTorch's own generator, which was seeded before this program could use it.
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
}

# The text is cut into so many parts, and the seed draws which are for the test, for validation and for training:
# neighbouring windows are much alike, so single windows would leak.
PARTS = 40
TEST_PARTS = 4
VALIDATION_PARTS = 4


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


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        query, key, value = (part.view(shape).transpose(1, 2) for part in self.into(x).chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    def __init__(self, width, activation):
        super().__init__()
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        return self.out(self.activation(self.into(x)))


class Sublayer(nn.Module):
    """Where the residual connection stands: x + f(norm(x)), norm(x + f(x)), or none at all."""

    def __init__(self, inner, width, placement, layer_norm, dropout):
        super().__init__()
        self.inner = inner
        self.norm = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.placement = placement
        self.dropout = dropout

    def forward(self, x):
        if self.placement == "pre":
            return x + self.dropout(self.inner(self.norm(x)))
        if self.placement == "post":
            return self.norm(x + self.dropout(self.inner(x)))
        return self.dropout(self.inner(self.norm(x)))


class CharTransformer(nn.Module):
    def __init__(self, characters, params, dropout):
        super().__init__()
        width = params["width"]
        layer_norm = params.get("layer_norm", True)
        wrap = lambda inner: Sublayer(inner, width, params["placement"], layer_norm, dropout)
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(params["context"], width)
        layers = []
        for _ in range(params["depth"]):
            layers.append(wrap(Attention(width, params["heads"])))
            layers.append(wrap(FeedForward(width, params["activation"])))
        self.layers = nn.Sequential(*layers)
        # Without it the output of a pre-norm stack grows with its depth; a post-norm stack ends in one already.
        ends_in_norm = layer_norm and params["placement"] != "post"
        self.norm = nn.LayerNorm(width) if ends_in_norm else nn.Identity()
        self.head = nn.Linear(width, characters)
        for module in (self.characters, self.positions, self.head):
            nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        places = torch.arange(x.shape[1])
        return self.head(self.norm(self.layers(self.characters(x) + self.positions(places))))


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
    """Numbers for characters (lower case), cut into parts that the seed hands out."""
    with open(ar.dataset(params["data_set"]), encoding="utf-8") as file:
        text = file.read().lower()
    alphabet = sorted(set(text))
    number = {character: index for index, character in enumerate(alphabet)}
    numbers = np.array([number[character] for character in text], dtype=np.int64)
    parts = np.array_split(numbers, PARTS)
    order = ar.generator("split").permutation(PARTS)
    pick = lambda chosen: [parts[index] for index in sorted(chosen)]
    test = pick(order[:TEST_PARTS])
    validation = pick(order[TEST_PARTS : TEST_PARTS + VALIDATION_PARTS])
    train = pick(order[TEST_PARTS + VALIDATION_PARTS :])
    return train, validation, test, len(alphabet)


def windows_of(parts, context):
    """Every window of the parts, one after the other, none over the end of a part."""
    rows = [part[start : start + context + 1] for part in parts for start in range(0, len(part) - context, context)]
    return torch.from_numpy(np.stack([row for row in rows if len(row) == context + 1]))


@torch.no_grad()
def evaluate(model, windows):
    """Mean loss in nats for each character; no number where the model gives none."""
    model.eval()
    total = 0.0
    for some in windows.split(64):
        logits = model(some[:, :-1])
        total += F.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="sum").item()
    model.train()
    return total / (len(windows) * (windows.shape[1] - 1))


def main():
    params = ar.params
    steps = 3 if ar.smoke else params["steps"]
    warmup = params.get("warmup", 0)
    every = max(1, steps // params.get("evaluations", 8))
    context, batch = params["context"], params["batch_size"]
    train, validation, test, characters = load_split(params)
    starts = windows_of(train, context)
    validation = windows_of(validation, context)
    # A look at the validation text on the way costs a tenth of it; the last look reads all.
    quick = validation[:: max(1, len(validation) // 64)]

    dropout = Dropout(params.get("dropout", 0.0), ar.torch_generator("dropout"))
    model = CharTransformer(characters, params, dropout)
    optimizer = make_optimizer(model, params)
    order = ar.generator("order")

    recent = []
    for step in range(1, steps + 1):
        windows = starts[torch.from_numpy(order.integers(0, len(starts), size=batch))]
        for group in optimizer.param_groups:
            group["lr"] = params["lr"] * lr_factor(params["schedule"], step - 1, steps, warmup)
        logits = model(windows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent.append(loss.detach())
        if step == steps or step % every == 0:
            train_loss = torch.stack(recent).mean().item()
            recent = []
            last_look = step == steps and params["evaluate"] == "validation"
            val_loss = evaluate(model, validation if last_look else quick)
            ar.log(step=step, train_loss=train_loss, val_loss=val_loss)

    # The test text is read once, at the end, and only by an experiment that was registered to read it.
    if params["evaluate"] == "test":
        ar.log(step=steps, test_loss=evaluate(model, windows_of(test, context)))


main()
