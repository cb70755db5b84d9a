"""A super-resolver with window attention: what a machine-learning practitioner would try first on one pair of grids.

coarse field -> embedding -> blocks of attention within windows, shifted every other block -> bilinear interpolation of
the features onto the fine grid, learned features of each fine pixel beside them -> convolutions -> a normal
distribution of what bilinear interpolation of the field itself misses. Values are differences from each field's mean,
so that it is as blind to a shift as the model that it is measured against.

It trains for a given time, so that it can be given as long as a model had; the weights that explained a held-out block
of days best are kept.

Source: Liang et al. 2021 (SwinIR) for the blocks. Differs: interpolated features instead of pixel shuffling, so that
    any two grids fit.
"""

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.data.grid import goes_round
from pipelines.data.sphere import sun_covariates
from pipelines.products.residuals import Array, Residuals, bilinear_pixels, check_grid, flat
from vamoh.precision import at_least_float32

CHECKS = 20
SUN = 4


@dataclass(frozen=True, kw_only=True)
class WindowAttention:
    """What to train.

    Attributes:
        seconds: how long.
        width: features.
        depth: blocks.
        window: coarse points along a window's side.
        batch: fields a step.
        learning_rate: at first; it falls to nothing as a cosine of the time that has passed.
        seed: of the parameters and the order.
    """

    seconds: float = 120.0
    width: int = 48
    depth: int = 4
    window: int = 4
    batch: int = 8
    learning_rate: float = 2e-3
    seed: int = 0

    def fit(self, truth: xr.DataArray, coarse: xr.DataArray) -> "FittedWindowAttention":
        """Train for so many seconds.

        Args:
            truth: dims (time, latitude, longitude), NaN where missing.
            coarse: the same times on the coarse grid.

        Raises:
            ValueError: if the times differ or are fewer than two, or there is no time to train in.
        """
        if self.seconds <= 0:
            raise ValueError(f"a window-attention model needs seconds to train in, more than 0, got {self.seconds:g}")
        began = time.perf_counter()
        data = Residuals.of(truth, coarse, 6)
        held = data.blocks[len(data.blocks) // 2]
        fitted = np.setdiff1d(np.arange(len(data.points)), held)
        shape = (coarse.sizes["latitude"], coarse.sizes["longitude"])
        inputs = _inputs(coarse, shape)
        target = torch.from_numpy(data.residual.astype(np.float32))
        scale = float(np.nanstd(data.residual[fitted])) or 1.0
        area = torch.from_numpy((data.pixel_area / data.pixel_area.sum()).astype(np.float32))
        scaling = inputs[fitted][:, 0].std().clamp_min(1e-6)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = _Network(self, coarse, data.latitude, data.longitude, float(scaling))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=1e-2)
        rng = np.random.default_rng(self.seed)
        best, kept, checks, steps = np.inf, copy.deepcopy(network.state_dict()), 0, 0
        while (share := (time.perf_counter() - began) / self.seconds) < 1 or steps == 0:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
            chosen = rng.choice(fitted, min(self.batch, len(fitted)), replace=False)
            loss = _loss(network(inputs[chosen]), target[chosen] / scale, area)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            steps += 1
            if share * CHECKS >= checks + 1:
                checks = int(share * CHECKS)
                score = _held_out(network, inputs[held], target[held] / scale, area)
                if score < best:
                    best, kept = score, copy.deepcopy(network.state_dict())
        if _held_out(network, inputs[held], target[held] / scale, area) > best:
            network.load_state_dict(kept)
        return FittedWindowAttention(
            network=network.eval(),
            scale=scale,
            steps=steps,
            latitude=data.latitude,
            longitude=data.longitude,
            coarse_latitude=np.asarray(coarse["latitude"].values, np.float64),
            coarse_longitude=np.asarray(coarse["longitude"].values, np.float64),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedWindowAttention:
    """The network, the residual's scale in the field's unit, the steps that it had time for, and the grids."""

    network: nn.Module
    scale: float
    steps: int
    latitude: Array
    longitude: Array
    coarse_latitude: Array
    coarse_longitude: Array

    @torch.no_grad()
    def predict(self, coarse: xr.DataArray) -> xr.Dataset:
        """Downscale fields on the coarse grid that was fitted.

        Args:
            coarse: dims (time, latitude, longitude).

        Returns:
            `mean` and `std` (time, latitude, longitude) of a normal distribution.

        Raises:
            ValueError: if the coarse grid is another one.
        """
        check_grid(coarse, self.coarse_latitude, self.coarse_longitude)
        inputs = _inputs(coarse, (len(self.coarse_latitude), len(self.coarse_longitude)))
        outputs = torch.cat([self.network(inputs[first : first + 8]) for first in range(0, len(inputs), 8)])
        shape = (-1, len(self.latitude), len(self.longitude))
        dims = ("time", "latitude", "longitude")
        mean = bilinear_pixels(coarse, self.latitude, self.longitude) + outputs[:, 0].double().numpy() * self.scale
        std = outputs[:, 1].exp().double().numpy() * self.scale
        return xr.Dataset(
            {"mean": (dims, mean.reshape(shape)), "std": (dims, std.reshape(shape))},
            coords={"time": coarse["time"], "latitude": self.latitude, "longitude": self.longitude},
        )


class _Network(nn.Module):
    """(B, 1 + 4, h, w) -> (B, 2, P): mean and log standard deviation at the fine pixels."""

    def __init__(
        self, spec: WindowAttention, coarse: xr.DataArray, latitude: Array, longitude: Array, scale: float
    ) -> None:
        super().__init__()
        height, breadth = coarse.sizes["latitude"], coarse.sizes["longitude"]
        self.scale, self.round = scale, goes_round(coarse["longitude"].values.astype(np.float64))
        rows, columns = _axis_weights(coarse, latitude, longitude)
        self.register_buffer("rows", torch.from_numpy(rows.astype(np.float32)))
        self.register_buffer("columns", torch.from_numpy(columns.astype(np.float32)))
        self.embed = nn.Conv2d(1 + SUN, spec.width, 3)
        self.place = nn.Parameter(torch.zeros(spec.width, height, breadth))
        self.blocks = nn.ModuleList(
            _Block(spec.width, spec.window, spec.window // 2 * (number % 2)) for number in range(spec.depth)
        )
        self.fine_place = nn.Parameter(torch.zeros(8, len(latitude), len(longitude)))
        self.mix = nn.Conv2d(spec.width + 8, 32, 3)
        self.head = nn.Conv2d(32, 2, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = torch.cat([inputs[:, :1] / self.scale, inputs[:, 1:]], dim=1)
        features = self.embed(self._around(scaled)) + self.place
        for block in self.blocks:
            features = block(features)
        fine = self.rows @ features @ self.columns.T  # bilinear, separable
        fine = torch.cat([fine, self.fine_place.expand(len(fine), -1, -1, -1)], dim=1)
        return self.head(nn.functional.gelu(self.mix(self._around(fine)))).flatten(2)

    def _around(self, field: Tensor) -> Tensor:
        """One more row and column on every side; a field that goes round the globe goes on."""
        wide = nn.functional.pad(field, (1, 1, 0, 0), mode="circular" if self.round else "replicate")
        return nn.functional.pad(wide, (0, 0, 1, 1), mode="replicate")


class _Block(nn.Module):
    """Attention within windows, then a small network at every point, each added to what came in."""

    def __init__(self, width: int, window: int, shift: int, heads: int = 4) -> None:
        super().__init__()
        self.window, self.shift, self.heads = window, shift, heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.pairs = nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.zeros(heads, window**2, window**2))
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, field: Tensor) -> Tensor:
        size, width, height, breadth = field.shape
        side, before = self.window, self.shift
        down, right = -(height + before) % side, -(breadth + before) % side
        points = nn.functional.pad(field.permute(0, 2, 3, 1), (0, 0, before, right, before, down))
        rows, columns = points.shape[1] // side, points.shape[2] // side
        there = nn.functional.pad(field.new_ones(height, breadth), (before, right, before, down)) > 0
        seen = there.view(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, 1, 1, side**2)
        windows = points.view(size, rows, side, columns, side, width).transpose(2, 3).reshape(-1, side**2, width)
        pairs = self.pairs(self.norms[0](windows)).view(len(windows), side**2, 3, self.heads, -1)
        query, key, value = pairs.permute(2, 0, 3, 1, 4)
        masked = torch.where(seen, self.bias, torch.finfo(field.dtype).min / 2)
        given = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=masked.repeat(size, 1, 1, 1))
        windows = windows + self.out(given.transpose(1, 2).flatten(2))
        windows = windows + self.narrow(nn.functional.gelu(self.widen(self.norms[1](windows))))
        points = windows.view(size, rows, columns, side, side, width).transpose(2, 3)
        points = points.reshape(size, rows * side, columns * side, width)
        return points[:, before : before + height, before : before + breadth].permute(0, 3, 1, 2)


def _inputs(coarse: xr.DataArray, shape: tuple[int, int]) -> Tensor:
    """(T, 1 + 4, h, w): the field without its mean, zero where missing, and where the sun stands."""
    values = flat(coarse)
    anomaly = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    latitude, longitude = np.meshgrid(coarse["latitude"].values, coarse["longitude"].values, indexing="ij")
    sun = sun_covariates(coarse["time"].values, latitude.ravel().astype(float), longitude.ravel().astype(float))
    both = np.concatenate([anomaly[:, None], sun.transpose(0, 2, 1)], axis=1).astype(np.float32)
    return torch.from_numpy(both.reshape(len(values), 1 + SUN, *shape))


def _axis_weights(coarse: xr.DataArray, latitude: Array, longitude: Array) -> tuple[Array, Array]:
    """Bilinear weights (n, h) and (m, w): the interpolation of each axis' unit vectors."""
    rows, columns = (coarse[name].values.astype(np.float64) for name in ("latitude", "longitude"))
    steps = np.argsort(rows)
    down = np.stack([np.interp(latitude, rows[steps], unit[steps]) for unit in np.eye(len(rows))], axis=1)
    turn = 360.0 if goes_round(columns) else None
    across = np.stack([np.interp(longitude, columns, unit, period=turn) for unit in np.eye(len(columns))], axis=1)
    return down, across


def _loss(outputs: Tensor, target: Tensor, area: Tensor) -> Tensor:
    """Mean negative log density over the area that is observed, nats."""
    mean, log_scale = at_least_float32(outputs).unbind(dim=1)
    log_scale = log_scale.clamp(-6, 3)
    seen = torch.isfinite(target)
    error = torch.where(seen, target, mean) - mean
    nats = 0.5 * (error * torch.exp(-log_scale)) ** 2 + log_scale
    weight = area * seen
    return (nats * weight).sum() / weight.sum().clamp_min(1e-12)


@torch.no_grad()
def _held_out(network: nn.Module, inputs: Tensor, target: Tensor, area: Tensor) -> float:
    parts: list[NDArray[np.floating]] = [
        _loss(network(inputs[first : first + 8]), target[first : first + 8], area).numpy()
        for first in range(0, len(inputs), 8)
    ]
    return float(np.mean(parts))
