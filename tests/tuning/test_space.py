"""A search space says what it means, and refuses what the training config would refuse, before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.config import Config
from tuning.space import SpaceConfig, load_space, spaces

WRITE = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> WRITE:
    """A sweep in a file; keywords change it."""

    def build(**changes: object) -> str:
        tree = {
            "train": "downscale",
            "set": {"training.epochs": 3},
            "search": {
                "model.components": {"int": [1, 3]},
                "model.generator": {"choice": [[8], [16, 16]]},
                "training.learning_rate": {"log": [1e-4, 1e-2]},
                "training.beta": {"float": [0.5, 2.0], "when": {"model.components": [2, 3]}},
            },
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({**tree, **changes}))
        return str(path)

    return build


@pytest.mark.parametrize("name", spaces())
def test_every_shipped_sweep_loads_and_says_what_it_is_for(name) -> None:
    space = load_space(name)
    assert space.description and isinstance(space.config(space.draw(np.random.default_rng(0))), Config)


def test_the_shipped_sweeps_are_there() -> None:
    assert {"mixture-depth", "wide"} <= set(spaces())


def test_what_is_drawn_lies_in_the_space_and_becomes_a_config(write: WRITE) -> None:
    space, rng = load_space(write()), np.random.default_rng(1)
    rates, components = [], []
    for _ in range(300):
        values = space.draw(rng)
        assert ("training.beta" in values) == (values["model.components"] > 1)
        config = space.config(values, ["seed=7"])
        assert config.training.epochs == 3 and config.seed == 7
        assert config.model.components == values["model.components"]
        assert list(config.model.generator) in ([8], [16, 16])
        rates.append(np.log10(values["training.learning_rate"]))
        components.append(values["model.components"])
    assert set(components) == {1, 2, 3} and min(rates) >= -4 and max(rates) <= -2
    assert abs(np.mean(rates) + 3) < 0.1  # uniform in the logarithm


def test_optunas_sampler_is_asked_for_what_the_space_holds(write: WRITE) -> None:
    asked: dict[str, object] = {}

    class Lowest:
        def suggest_categorical(self, name: str, choices: list[str]) -> str:
            asked[name] = choices
            return choices[0]

        def suggest_int(self, name: str, low: int, high: int) -> int:
            asked[name] = (low, high)
            return low

        def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
            asked[name] = (low, high, log)
            return low

    values = load_space(write()).suggest(Lowest())
    assert values == {"model.components": 1, "model.generator": [8], "training.learning_rate": 1e-4}
    assert asked["training.learning_rate"] == (1e-4, 1e-2, True)
    assert asked["model.generator"] == [json.dumps([8]), json.dumps([16, 16])]


def test_a_grid_is_every_combination_that_means_something(write: WRITE) -> None:
    search = {
        "model.components": {"int": [1, 3]},
        "model.flow_depth": {"choice": [0, 4]},
        "training.beta": {"choice": [0.5, 1.0], "when": {"model.components": [3]}},
    }
    grid = load_space(write(search=search, method="grid")).grid()
    assert len(grid) == 2 * 2 + 1 * 2 * 2
    assert all(("training.beta" in each) == (each["model.components"] == 3) for each in grid)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {"model.component": {"int": [1, 3]}}}, "unknown key 'model.component', did you mean 'components'?"),
        ({"search": {"model.components": {"int": [0, 3]}}}, "components must be at least 1, got 0"),
        ({"search": {"model.components": {"choice": ["many"]}}}, "model.components"),
        ({"search": {"model.components": {"int": [3, 1]}}}, "a range is [low, high], got [3, 1]"),
        ({"search": {"training.beta": {"log": [0, 1]}}}, "a logarithmic range needs positive ends"),
        ({"search": {"training.beta": {"chioce": [0, 1]}}}, "unknown key, did you mean 'choice'?"),
        ({"search": {"training.beta": {"float": [0, 1], "int": [0, 1]}}}, "exactly one of choice, int, float, log"),
        ({"search": {"training.beta": {"float": [0, 1], "when": {"seed": [1]}}}}, "not searched before it"),
        ({"search": {}}, "there is nothing to search"),
        ({"search": {"training.beta": {"float": [0, 1]}}, "method": "grid"}, "list values under `choice`"),
        ({"train": "downscle"}, "there is no preset 'downscle', did you mean 'downscale'?"),
        ({"set": {"training.epoch": 3}}, "unknown key 'training.epoch', did you mean 'epochs'?"),
        ({"trails": 3}, "trails: unknown key, did you mean 'trials'?"),
    ],
)
def test_a_mistake_is_refused_in_one_line_before_anything_starts(write: WRITE, changes, said) -> None:
    with pytest.raises(ValueError) as caught:
        load_space(write(**changes))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_sweep_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no sweep 'widest': they are mixture-depth, wide"):
        load_space("widest")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_space(str(tmp_path / "none.yaml"))


def test_a_space_survives_json(write: WRITE) -> None:
    space = load_space(write())
    assert SpaceConfig.model_validate(json.loads(space.model_dump_json(exclude_none=True, by_alias=True))) == space
