"""A training run as a typed object: YAML in, validated, unknown keys refused with the nearest valid name.

The objects that are built from it take plain values, never the config itself.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.quantities import Quantity, check_quantity
from vamoh.peers import FunctaSpec, GaspSpec
from vamoh.spec import ModelSpec

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
_OPTION = re.compile(r"tuple\[.*|constrained-.*|literal\[.*|str|bool")  # how pydantic marks the options of a union


def _system(model: object) -> str:
    """Which spec a `model` section is; without a word, VAMoH's."""
    return str(model.get("system", "vamoh") if isinstance(model, Mapping) else getattr(model, "system", "vamoh"))


AnySpec = Annotated[
    Annotated[ModelSpec, Tag("vamoh")] | Annotated[FunctaSpec, Tag("functa")] | Annotated[GaspSpec, Tag("gasp")],
    Discriminator(
        _system, custom_error_type="system", custom_error_message="Input should be 'vamoh', 'functa' or 'gasp'"
    ),
]


class Section(BaseModel):
    """A part of the config: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ContextConfig(Section):
    """Where a downscaling model's coarse field comes from in training.

    Attributes:
        every: Every n-th point of the fine lattice from its first (the lattice that the user downscales from), or a
            range [low, high] of factors, each with a random offset, for a model that takes any input grid.
        kind: What is known of the truth: its values at the lattice's "points"; its "means" over blocks of n x n points,
            at their centres; or "scattered": its values at any set of points, as dense as lattices of `every`, grids,
            grids with gaps and random points in turn.
        base: What the model corrects: an "analysis" with the covariances of training fields, or, but for kind
            "scattered", bilinear "interpolation".
        noise: Standard deviation of the errors of what is known, kelvin: added in training, and to be removed.
    """

    every: Positive | tuple[Positive, Positive] = 4
    kind: Literal["points", "means", "scattered"] = "points"
    base: Literal["analysis", "interpolation"] = "analysis"
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> ContextConfig:
        if isinstance(self.every, tuple) and self.every[0] > self.every[1]:
            raise ValueError(f"a range of factors is [low, high], got {list(self.every)}")
        return self

    @property
    def analysed(self) -> bool:
        """Whether whole fields are made of what is known first."""
        return self.kind == "scattered" or self.base == "analysis"

    @property
    def factors(self) -> tuple[int, int]:
        """The smallest and the largest factor."""
        return self.every if isinstance(self.every, tuple) else (self.every, self.every)


class SplitConfig(Section):
    """Which samples train, validate and test: contiguous in time, because neighbouring hours are nearly the same.

    Attributes:
        test: A fraction taken from the end, or a span such as "2019-03-24:2019-03-31" (both days included).
        train: A span, or None for all that the others leave.
        validation: The fraction of what is left to train on that is held out, in blocks spread over it.
        blocks: How many such blocks.
        gap_hours: Left out between the last training sample and the first test sample.
    """

    test: Fraction | str = 0.25
    train: str | None = None
    validation: Fraction = 0.12
    blocks: Positive = 3
    gap_hours: Annotated[float, Field(ge=0)] = 24.0

    @field_validator("test", "train", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """YAML reads a bare 2019-03-24 as a date."""
        return value.isoformat() if isinstance(value, date) else value


class StagesConfig(Section):
    """When priors begin to be learned: the paper's two-stage schedule.

    Attributes:
        unit: What the others count.
        prior: From then on p(z) is learned; before, it is N(0, I).
        gate: From then on p(c | x, z) is learned; before, it is uniform.
    """

    unit: Literal["epochs", "steps"] = "epochs"
    prior: Annotated[int, Field(ge=0)] = 0
    gate: Annotated[int, Field(ge=0)] = 0

    def learned(self, epoch: int, step: int) -> tuple[bool, bool]:
        """Whether the prior, and whether the gate, is learned in a step of an epoch (both from 0, steps over all)."""
        now = epoch if self.unit == "epochs" else step
        return now >= self.prior, now >= self.gate


class TrainingConfig(Section):
    """How a model is trained.

    Attributes:
        epochs: Passes over the training samples.
        batch_size: Functions a step, over all workers.
        last_batch: Whether an epoch ends with a smaller batch of what is left over, or without it.
        points: Points of each function that a step scores; 0 for all of them. The classic model's encoder reads all.
        micro_batch: Functions that a worker differentiates at a time, 0 for all that it has of a batch: the same step,
            in less memory.
        precision: Of matrix products in training; sums, likelihoods and weights are float32 in either.
        compile: Compile the objective with torch.compile.
        learning_rate: Of encoders, hypernetworks, gates and prior.
        local_rate, grid_rate: Of the local read-out's networks, and of the feature grids.
        discriminator_rate: Of GASP's discriminator.
        weight_decay, grid_decay: Decoupled, of everything but the feature grids, and of these.
        schedule: "cosine" (after the warm-up, down to nothing) or "constant".
        warmup: Steps.
        clip: Largest gradient norm.
        hidden: Share of functions of which a classic model's encoder sees a part only, so that it learns to complete.
        stretch: Shapes and pictures are drawn out or pressed by up to this share along each axis, anew in every epoch.
        within: Share of a cell (a voxel, a pixel) in which its value is asked for, anywhere, anew in every step; with 0
            only at its middle, and what a function does between the middles is left to chance.
        kl_samples: Latents for the KL.
        beta: Weight of the KL of z.
        predictive: Share of E_{p(z | context)}[log p(Y | X, z)] beside the bound (0 is the bound alone).
        stages: When priors begin to be learned.
        average: Decay of the moving average of the weights that is evaluated and kept.
        validate_every: Epochs between validations (and checkpoints).
        checkpoint_minutes: Minutes between the checkpoints in between; 0 for none.
        select: The validation quantity by which the best checkpoint is chosen; the bound, of the classic model alone;
            the energy distance of samples, of systems of whole functions.
        keep: Checkpoints to go on from that are kept, the newest ones; the best is kept besides.
        patience: Validations without improvement after which training stops; 0 never stops.
        members: Members of a validation ensemble.
        buffer: Chunks held in memory to shuffle over.
        prefetch: Batches made ahead; 0 for what `vamoh data tune` found for the store, else 2.
        threads: Torch threads of a worker; 0 for as many as the worker has CPUs.
    """

    epochs: Positive = 100
    batch_size: Positive = 32
    last_batch: Literal["keep", "drop"] = "drop"
    points: Annotated[int, Field(ge=0)] = 0
    micro_batch: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    learning_rate: Rate = 1e-3
    local_rate: Rate = 1e-2
    grid_rate: Rate = 2e-2
    discriminator_rate: Rate = 4e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grid_decay: Annotated[float, Field(ge=0)] = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Annotated[int, Field(ge=0)] = 50
    clip: Rate = 10.0
    hidden: Annotated[float, Field(ge=0, le=1)] = 0.0
    stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    within: Annotated[float, Field(ge=0, le=1)] = 0.0
    kl_samples: Positive = 1
    beta: Annotated[float, Field(ge=0)] = 1.0
    predictive: Annotated[float, Field(ge=0, le=1)] = 0.0
    stages: StagesConfig = StagesConfig()
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    validate_every: Positive = 10
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    select: Quantity = "validation_crps"
    keep: Positive = 1
    patience: Annotated[int, Field(ge=0)] = 0
    members: Positive = 8
    buffer: Positive = 4
    prefetch: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0


class Config(Section):
    """Everything that determines a run, given a store.

    Attributes:
        description: What the preset is for, in a sentence.
        seed: Of the initial parameters, of every order and of every draw.
        context: The coarse field, or None for the classic model.
        split, model, training: See there.
    """

    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    context: ContextConfig | None = None
    split: SplitConfig = SplitConfig()
    model: AnySpec = ModelSpec()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        if (self.context is None) != (self.model.local is None):
            raise ValueError(
                "`context` and `model.local` come together: both for downscaling, neither for the classic model"
            )
        system = self.model.system
        check_quantity(self.training.select, system, downscales=self.context is not None)
        if system != "vamoh" and (self.training.compile or self.training.precision != "float32"):
            raise ValueError(
                f"training.precision and training.compile: {system} is trained in float32 and not compiled, for its "
                "gradients go through gradients"
            )
        if system == "gasp" and self.training.hidden:
            raise ValueError("training.hidden: gasp infers nothing, and nothing can be hidden from it: leave it 0")
        if system == "gasp" and self.training.within:
            raise ValueError("training.within: gasp's discriminator sees all functions at the same places: leave it 0")
        return self

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name this config's content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def presets() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("pipelines") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str, overrides: Iterable[str] = ()) -> Config:
    """A preset by its name, or a YAML file by its path, with `a.b=value` overrides.

    Raises:
        ValueError: If there is no such preset or file, a key is unknown (the nearest valid one is named) or a value
            is out of range.
    """
    path = Path(source)
    if source in presets():
        text = (resources.files("pipelines") / "presets" / f"{source}.yaml").read_text()
    elif path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no config file {source}: give a preset ({', '.join(presets())}) or a YAML file"
            )
        text = path.read_text()
    else:
        hint = _nearest(source, presets())
        raise ValueError(
            f"there is no preset {source!r}{hint or ':'} the presets are {', '.join(presets())}; or give a YAML file"
        )
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{source} must hold keys and values, got {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    return parse_config(tree, source)


def parse_config(tree: Mapping[str, Any], source: str = "the config") -> Config:
    """Validate a mapping; errors name the key, what was expected and what came, one clear line."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        loc = [part for part in first["loc"] if not _OPTION.fullmatch(str(part))]
        loc = loc[:1] + loc[2:] if loc[:1] == ["model"] else loc  # which spec it was read as
        place = ".".join(map(str, loc))
        if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            key, parent = first["loc"][-1], first["loc"][:-1]
            hint = _nearest(str(key), _keys_at(parent))
            raise ValueError(f"{source}: unknown key {place!r}{hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "system":
            raise ValueError(f"{source}: {place}.system: {message}, got {first['input']['system']!r}") from error
        came = "" if first["type"] == "value_error" else f", got {json.dumps(first['input'], default=str)}"
        raise ValueError(f"{source}: {place + ': ' if place else ''}{message}{came}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value` to a nested mapping."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set expects key=value such as context.every=4, got {override!r}")
    *parents, last = key.split(".")
    branch = tree
    for parent in parents:
        if branch.get(parent) is None:
            branch[parent] = {}
        branch = branch[parent]
        if not isinstance(branch, dict):
            raise ValueError(f"--set {override}: {parent!r} is a value, it has no keys")
    try:
        branch[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: {text!r} is not a YAML value") from error


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """Valid keys at a place of the schema."""
    schema = Config.model_json_schema()
    node: dict[str, Any] = schema
    for part in (None, *place):
        if "oneOf" in node:  # by its system
            options = [schema["$defs"][option["$ref"].rsplit("/", 1)[-1]] for option in node["oneOf"]]
            node = next(option for option in options if option["properties"]["system"]["const"] == part)
        elif part is not None:
            node = node.get("properties", {}).get(part, {})
        for option in (node, *node.get("anyOf", [])):
            if "$ref" in option:
                node = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
    return list(node.get("properties", {}))


def _nearest(word: str, choices: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f", did you mean {match[0]!r}?" if match else ""
