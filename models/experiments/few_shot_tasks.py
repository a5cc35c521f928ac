"""Tasks of few-shot learning, the images they are drawn from, and the network that is learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

from bilevelpy.errors import UsageError


@dataclass(frozen=True)
class Network:
    """Blocks of 3 x 3 convolution, normalisation of each image over all channels, x sigmoid(x), and
    2 x 2 mean pooling: smooth, so that it may be differentiated twice. On images of more than 16
    pixels a side the first block is a 5 x 5 convolution with stride 2 instead of pooling, which
    takes a third of the time. Computes in float32; the heads are fitted in float64.
    """

    side: int
    channels: int
    blocks: int

    @property
    def strided(self) -> bool:
        """Whether the first block has a stride."""
        return self.side > 16

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of filters and offsets, in the order in which they lie in ``theta``."""
        found: list[tuple[int, ...]] = []
        for block in range(self.blocks):
            width = 5 if block == 0 and self.strided else 3
            inputs = 1 if block == 0 else self.channels
            found += [(self.channels, inputs, width, width), (self.channels,)]
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
        functional = torch.nn.functional
        tasks, count, _ = images.shape
        h = images.float().reshape(tasks * count, 1, self.side, self.side)
        parts = torch.split(theta.float(), [int(np.prod(s)) for s in self.shapes])
        for k in range(self.blocks):
            filters, offsets = parts[2 * k].reshape(self.shapes[2 * k]), parts[2 * k + 1]
            strided = k == 0 and self.strided
            width = filters.shape[-1]
            h = functional.conv2d(
                h, filters, offsets, padding=width // 2, stride=2 if strided else 1
            )
            h = functional.silu(functional.group_norm(h, 1))
            if not strided:
                h = functional.avg_pool2d(h, 2)
        flat: torch.Tensor = h.reshape(tasks, count, -1).to(theta.dtype)
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
        if shots + queries > drawings:
            raise UsageError(
                f"a task takes {shots} and {queries} images of each class, which has {drawings}"
            )
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


def nearest_mean(data: dict[str, NDArray]) -> NDArray:
    """The share of every task that the nearest class mean on pixels gets right, by the angle
    between images (better than their distance on drawings): a baseline without training.
    """

    def unit(rows: NDArray) -> NDArray:
        return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)

    means = unit(np.einsum("tsc,tsp->tcp", data["hot"], unit(data["S"])))
    near = np.einsum("tqp,tcp->tqc", unit(data["Q"]), means).argmax(axis=2)
    found: NDArray = (near == data["label"]).mean(axis=1)
    return found


def turned(images: NDArray) -> Pool:
    """Classes (classes, drawings, side, side), turned by quarters as classes of their own."""
    found = np.concatenate([np.rot90(images, k, axes=(2, 3)) for k in range(4)])
    return Pool(found.reshape(*found.shape[:2], -1))


def omniglot(folder: Path) -> tuple[Pool, Pool]:
    """The classes of the background set, also turned, and those of the evaluation set."""
    z = datasets.read(folder, "omniglot28.npz")
    bits, background = z["images"], z["background"]
    if bits.dtype != np.uint8 or bits.shape != (background.size, 20, 98):
        expected = f"uint8 ({background.size}, 20, 98) for its classes"
        raise UsageError(f"{z.path}: needs images {expected}, found {bits.dtype} {bits.shape}")
    if background.dtype != bool or min(background.sum(), (~background).sum()) < 2:
        raise UsageError(
            f"{z.path}: `background` is True for two or more classes, False for others"
        )
    images = np.unpackbits(bits, axis=-1).reshape(-1, 20, 28, 28)
    train, test = images[background], images[~background]
    return turned(train), Pool(test.reshape(len(test), 20, 784))


def digits() -> tuple[Pool, Pool]:
    """The miniature: learn on the digits 0 to 5, also turned, test on 6 to 9; 8 x 8 pixels."""
    with np.load(Path(__file__).resolve().parents[1] / "data" / "digits.npz") as z:
        X = np.vstack([z["X"], z["Xv"], z["Xt"]]) / 16.0
        y = np.concatenate([z["y"], z["yv"], z["yt"]])
    count = np.bincount(y).min()
    images = np.stack([X[y == k][:count] for k in range(10)])
    return turned(images[:6].reshape(6, count, 8, 8)), Pool(images[6:])
