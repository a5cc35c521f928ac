"""Experiment 3: few-shot learning on Omniglot, or in miniature on the digits of scikit-learn.

The model has the tasks of one step as its followers. This loop, which is the user's own, draws new
tasks, binds them (nothing is compiled again), takes the hypergradient and moves the weights of the
network by Adam: ``python models/experiments/few_shot.py --data FOLDER --ways 5 --shots 1``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

import bilevelpy as bl
from bilevelpy import storage

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Network:
    """Blocks of 3 x 3 convolution, normalisation of each image, softplus and 2 x 2 mean pooling:
    smooth, so that it may be differentiated twice.
    """

    side: int
    channels: int
    blocks: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of filters and offsets, in the order in which they lie in ``theta``."""
        found: list[tuple[int, ...]] = []
        for block in range(self.blocks):
            found += [(self.channels, 1 if block == 0 else self.channels, 3, 3), (self.channels,)]
        return found

    @property
    def features(self) -> int:
        """Numbers that an image becomes."""
        return self.channels * (self.side // 2**self.blocks) ** 2

    def start(self, rng: np.random.Generator) -> NDArray:
        """Random filters, offsets 0."""
        parts = [
            rng.normal(size=s) * np.sqrt(2 / np.prod(s[1:])) if len(s) > 1 else np.zeros(s)
            for s in self.shapes
        ]
        return np.concatenate([p.ravel() for p in parts])

    def __call__(self, theta: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Features of ``images`` (tasks, images, pixels)."""
        tasks, count, _ = images.shape
        h = images.reshape(tasks * count, 1, self.side, self.side)
        parts = torch.split(theta, [int(np.prod(s)) for s in self.shapes])
        for k in range(self.blocks):
            filters, offsets = parts[2 * k].reshape(self.shapes[2 * k]), parts[2 * k + 1]
            h = torch.nn.functional.conv2d(h, filters, offsets, padding=1)
            h = torch.nn.functional.instance_norm(h)
            h = torch.nn.functional.avg_pool2d(torch.nn.functional.softplus(h), 2)
        flat: torch.Tensor = h.reshape(tasks, count, -1)
        return flat


@dataclass(frozen=True)
class Pool:
    """Classes that tasks are drawn from: ``images`` (classes, drawings, pixels)."""

    images: NDArray

    def tasks(
        self, rng: np.random.Generator, count: int, ways: int, shots: int, queries: int
    ) -> dict[str, NDArray]:
        """``count`` tasks of ``ways`` classes, with the names that the model gives them."""
        classes, drawings, _ = self.images.shape
        support, query = [], []
        for _ in range(count):
            chosen = rng.choice(classes, ways, replace=False)
            picks = [rng.permutation(drawings)[: shots + queries] for _ in chosen]
            drawn = np.stack([self.images[c, p] for c, p in zip(chosen, picks, strict=True)])
            support.append(drawn[:, :shots].reshape(ways * shots, -1))
            query.append(drawn[:, shots:].reshape(ways * queries, -1))
        hot = np.repeat(np.eye(ways), shots, axis=0)
        label = np.repeat(np.arange(ways, dtype=float), queries)
        return {
            "S": np.array(support, dtype=float), "Q": np.array(query, dtype=float),
            "hot": np.tile(hot, (count, 1, 1)), "label": np.tile(label, (count, 1)),
        }  # fmt: skip


def omniglot(folder: Path) -> tuple[Pool, Pool]:
    """The classes of the background set, turned by quarters as classes of their own, and those of
    the evaluation set as they are.
    """
    z = datasets.read(folder, "omniglot28.npz")
    images = np.unpackbits(z["images"], axis=-1).reshape(-1, 20, 28, 28)
    train, test = images[z["background"]], images[~z["background"]]
    turned = np.concatenate([np.rot90(train, k, axes=(2, 3)) for k in range(4)])
    return Pool(turned.reshape(len(turned), 20, 784)), Pool(test.reshape(len(test), 20, 784))


def digits() -> tuple[Pool, Pool]:
    """The miniature: learn on the digits 0 to 5, test on 6 to 9; 8 x 8 pixels."""
    with np.load(HERE.parent / "data" / "digits.npz") as z:
        X = np.vstack([z["X"], z["Xv"], z["Xt"]]) / 16.0
        y = np.concatenate([z["y"], z["yv"], z["yt"]])
    count = np.bincount(y).min()
    images = np.stack([X[y == k][:count] for k in range(10)])
    return Pool(images[:6]), Pool(images[6:])


def nearest_mean(data: dict[str, NDArray], ways: int) -> float:
    """The share that the nearest class mean on pixels gets right: a baseline without training."""
    right = []
    for S, Q, hot, label in zip(data["S"], data["Q"], data["hot"], data["label"], strict=True):
        means = hot.T @ S / hot.sum(axis=0)[:, None]
        distance = ((Q[:, None] - means[None]) ** 2).sum(axis=2)
        right.append(distance.argmin(axis=1) == label)
    return float(np.mean(right))


def accuracy(model: bl.Model, x: NDArray, data: dict[str, NDArray], chunk: int) -> float:
    """The share of right queries over many tasks, some at a time."""
    right = []
    for first in range(0, len(data["S"]), chunk):
        part = {name: value[first : first + chunk] for name, value in data.items()}
        oracle = bl.compile(model.bind(data=part))
        values = oracle.reports(x, oracle.response(x))
        right.append(float(values["accuracy"]))
    return float(np.mean(right))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Few-shot learning with learned features")
    parser.add_argument("--data", type=Path, help="folder of the data sets; digits without it")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=8, help="tasks of a step")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=15.0, help="end of training")
    parser.add_argument("--rate", type=float, default=2e-3, help="step size of Adam")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-tasks", type=int, default=400)
    parser.add_argument("--checkpoint", type=Path, help="save the training; go on from it")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    given = parser.parse_args(arguments)
    try:
        found = train(given)
    except bl.BilevelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{given.ways}-way {given.shots}-shot: accuracy {found['accuracy']:.4f} "
        f"(nearest mean on pixels {found['baseline']:.4f}) after {found['steps']:.0f} steps, "
        f"{found['minutes']:.1f} min"
    )
    return 0


def train(given: argparse.Namespace) -> dict[str, float]:
    """Learn the features; accuracy on tasks of classes never seen before."""
    learn, test = digits() if given.data is None else omniglot(given.data)
    ways = min(given.ways, len(test.images))
    side = round(learn.images.shape[2] ** 0.5)
    network = Network(side, given.channels, 4 if side == 28 else 2)
    rng = np.random.default_rng(given.seed)
    theta = network.start(rng)

    def draw(pool: Pool, count: int, source: np.random.Generator) -> dict[str, NDArray]:
        return pool.tasks(source, count, ways, given.shots, given.queries)

    model = bl.load(
        HERE / "few_shot.blv",
        data=draw(learn, given.tasks, rng),
        theta0=theta,
        d=network.features,
        ways=ways,
        TASK=list(range(given.tasks)),
        externs={"support": network, "query": network},
    )
    x = np.concatenate([theta, [5.0]])
    first, second, step, spent = np.zeros_like(x), np.zeros_like(x), 0, 0.0
    if given.checkpoint is not None and given.checkpoint.exists():
        kept, meta = storage.read_npz(given.checkpoint)
        x, first, second = kept["x"], kept["first"], kept["second"]
        step, spent = int(meta["step"]), float(meta["spent"])
        rng.bit_generator.state = meta["rng"]
    began = time.perf_counter() - spent
    while step < given.steps and time.perf_counter() - began < 60 * given.minutes:
        oracle = bl.compile(model.bind(data=draw(learn, given.tasks, rng)))
        gradient = oracle.hypergradient(x)
        step += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = given.rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        x = x - rate * first / (np.sqrt(second) + 1e-8)
        if step % given.every == 0 and given.checkpoint is not None:
            spent = time.perf_counter() - began
            meta = {"step": step, "spent": spent, "rng": rng.bit_generator.state}
            storage.write_npz(given.checkpoint, {"x": x, "first": first, "second": second}, meta)
        if step % 100 == 0:
            seconds = time.perf_counter() - began
            print(f"step {step}: {seconds:.0f} s", file=sys.stderr, flush=True)
    minutes = (time.perf_counter() - began) / 60
    # Other tasks than those of training, whatever the seed.
    unseen = draw(test, given.test_tasks, np.random.default_rng(10_000 + given.seed))
    return {
        "accuracy": accuracy(model, x, unseen, given.tasks),
        "baseline": nearest_mean(unseen, ways),
        "steps": float(step),
        "minutes": minutes,
    }


if __name__ == "__main__":
    sys.exit(main())
