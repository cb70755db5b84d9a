"""What the command line answers, to people and to programs."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import typer.main
import yaml
from typer.testing import CliRunner

import pipelines.config
from infra.cli import app
from pipelines.config import load_config, parse_config, presets

HEAVY = (
    "dask",
    "matplotlib",
    "mlflow",
    "numpy",
    "pipelines",
    "ray",
    "scipy",
    "torch",
    "vamoh",
    "xarray",
    "yaml",
    "zarr",
)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - Typer's
    """Every command's words, groups included."""
    group = typer.main.get_command(app) if group is None else group
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


EVERY_COMMAND = list(commands())


def ids(words: tuple[str, ...]) -> str:
    return " ".join(("vamoh", *words))


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=ids)
def test_every_command_answers_help_with_an_example_of_itself(words: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*words, "--help"], prog_name="vamoh", env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    if words not in {("data",), ("models",), ("config",)}:
        example = answer.output.split("Example")[1]
        assert " ".join(("vamoh", *words)) in example


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=ids)
def test_help_fits_forty_columns(words: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*words, "--help"], prog_name="vamoh", env={"COLUMNS": "40"})
    assert max(map(len, answer.output.splitlines())) <= 40


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from infra.cli import main; code = main(['downscale', '--help']); "
        f"sys.exit(' '.join(m for m in {HEAVY!r} if m in sys.modules) or code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_command_the_help_is_shown(vamoh: Callable[..., Any]) -> None:
    ended = vamoh()
    assert ended.code == 0
    assert "vamoh demo" in ended.out


def test_the_version_is_that_of_the_distribution(vamoh: Callable[..., Any]) -> None:
    assert vamoh("--version").out == "vamoh 0.1.0\n"


MISTAKES = [
    ("dat", "No such command 'dat'"),
    ("data", "Missing command (see vamoh data --help)"),
    ("data climate a.nc", "Missing argument 'SOURCE'"),
    ("data climate a.nc b.zarr --nope", "No such option: --nope"),
    ("data climate a.nc b.zarr --every 0", "--every"),
    ("data climate a.nc b.zarr", "there is no file or folder 'a.nc'"),
    ("data climate a*.nc b.zarr", "no file fits the glob 'a*.nc'"),
    ("data climate a.nc b.zarr --region 1,2,3", "--region expects four numbers W,S,E,N"),
    ("data climate a.nc b.zarr --level 850 --level 500", "--level given several times expects DIMENSION=VALUE"),
    ("data climate {sample} b.zarr --variable tas", "choose one with --variable"),
    ("data climate {sample} b.zarr --time 1999", "covers 2026-03-25"),
    ("data climate {sample} b.zarr --units furlong", "furlong"),
    ("data climate {sample} b.zarr --region 0,95,1,99", "-90"),
    ("data climate {sample} b.zarr --level 850", "850"),
    ("data inspect b.zarr", "there is no store at 'b.zarr'"),
    ("data inspect {sample}", "is not a store"),
    ("train downscal --store b.zarr", "did you mean 'downscale'?"),
    ("train mine.yaml --store b.zarr", "there is no config file mine.yaml"),
    ("train era5 --store b.zarr --set model.latnt=3", "unknown key 'model.latnt', did you mean 'latent'?"),
    ("train era5", "Missing option '--store'"),
    ("train era5 --store b.zarr --workers -1", "--workers expects a number or a range MIN:MAX, e.g. 2 or 1:4"),
    ("train era5 --store b.zarr --workers 1:2:3", "--workers expects a number or a range MIN:MAX, e.g. 2 or 1:4"),
    ("config validate era5 --set training.epochs=many", "training.epochs"),
    ("config validate era5 --set seed", "--set expects key=value"),
    ("config show --set seed=1", "say which"),
    ("downscale m coarse.nc fine.nc", "one of --factor, --resolution, --like, --points; got none"),
    ("downscale m coarse.nc fine.nc --factor 2 --like a.nc", "got --factor and --like"),
    ("downscale m coarse.nc . --factor 2", "'.' exists already"),
    ("evaluate m --store b.zarr --json .", "'.' exists already"),
]


@pytest.mark.parametrize(("line", "answer"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_answered_in_one_line(
    line: str, answer: str, vamoh: Callable[..., Any], era5_sample: Path, tmp_path: Path
) -> None:
    ended = vamoh(*(word.format(sample=era5_sample) for word in line.split()))
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("vamoh: error: ")
    assert ended.err.count("\n") == 1
    assert answer in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_one_line_and_debug_shows_the_traceback_from_anywhere(
    vamoh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: str, overrides: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr("pipelines.config.load_config", broken)
    ended = vamoh("config", "validate", "era5")
    assert ended.code == 1
    assert ended.err.startswith("vamoh: error: this is a bug in vamoh: KeyError: 'gone'; run it again with --debug")
    assert ended.err.count("\n") == 1
    for line in (["--debug", "config", "validate", "era5"], ["config", "validate", "era5", "--debug"]):
        ended = vamoh(*line)
        assert ended.code == 1
        assert "Traceback" in ended.err
        assert 'raise KeyError("gone")' in ended.err


def test_debug_shows_where_a_mistake_was_found(vamoh: Callable[..., Any]) -> None:
    ended = vamoh("data", "inspect", "b.zarr", "--debug")
    assert ended.code == 2
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1].startswith("vamoh: error: there is no store")


def test_our_own_warnings_are_one_line_each_and_those_of_libraries_none(
    vamoh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import warnings\ndef presets():\n    warnings.warn('two\\nlines', stacklevel=1)\n    return []\n"
    for file, shown in ((pipelines.config.__file__, "vamoh: warning: two lines\n"), (yaml.__file__, "")):
        space: dict[str, Any] = {}
        exec(compile(source, file, "exec"), space)
        monkeypatch.setattr("pipelines.config.presets", space["presets"])
        assert vamoh("config", "show").err == shown


@pytest.mark.parametrize("name", presets())
def test_a_shown_config_is_a_config(name: str, vamoh: Callable[..., Any]) -> None:
    ended = vamoh("config", "show", name, "--set", "seed=3")
    assert ended.code == 0
    assert parse_config(yaml.safe_load(ended.out)) == load_config(name, ["seed=3"])
    assert json.loads(vamoh("config", "show", name, "--json").out)["seed"] == 0


def test_presets_are_listed_with_what_they_are_for(vamoh: Callable[..., Any]) -> None:
    lines = vamoh("config", "show").out.splitlines()
    assert [line.split()[0] for line in lines] == presets()
    assert json.loads(vamoh("config", "show", "--json").out) == {
        name: load_config(name).description for name in presets()
    }


def test_the_schema_accepts_what_is_shown_and_names_every_section(vamoh: Callable[..., Any]) -> None:
    schema = json.loads(vamoh("config", "schema").out)
    shown = json.loads(vamoh("config", "show", "downscale", "--json").out)
    assert set(shown) == set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_valid_file_of_ones_own_is_said_to_be_valid(vamoh: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 4\n")
    assert vamoh("config", "validate", "mine.yaml").out.startswith("mine.yaml is valid (config ")
    assert json.loads(vamoh("config", "validate", "mine.yaml", "--json").out)["valid"] is True


def test_a_genuine_field_becomes_a_store_that_can_be_looked_at(
    vamoh: Callable[..., Any], era5_sample: Path, tmp_path: Path
) -> None:
    made = vamoh(
        "data", "climate", era5_sample, "uk.zarr", "--region", "-10,50,2,58", "--license", "CC-BY 4.0", "--json"
    )
    assert made.code == 0
    described = json.loads(made.out)
    assert described["dims"] == {"time": 24, "latitude": 9, "longitude": 13}
    assert made.err.startswith("writing: 24/24 samples, ")

    inspected = json.loads(vamoh("data", "inspect", "uk.zarr", "--json").out)
    assert inspected["fingerprint"] == described["fingerprint"]
    assert inspected["statistics"] == described["statistics"]
    assert inspected["license"] == "CC-BY 4.0"
    shown = vamoh("data", "inspect", "uk.zarr").out
    assert "extent       longitude -10 to 2, latitude 50 to 58" in shown
    assert "mean over time (K)" in shown
    facts, _, _ = shown.partition("schema       1\n")
    assert all(line == line.rstrip() for line in facts.splitlines())


def test_a_store_is_replaced_only_with_overwrite(vamoh: Callable[..., Any], era5_sample: Path) -> None:
    assert vamoh("data", "climate", era5_sample, "a.zarr", "--every", "60").code == 0
    refused = vamoh("data", "climate", era5_sample, "a.zarr", "--every", "30")
    assert (refused.code, "--overwrite" in refused.err) == (2, True)
    assert vamoh("data", "climate", era5_sample, "a.zarr", "--every", "30", "--overwrite").code == 0
    assert json.loads(vamoh("data", "inspect", "a.zarr", "--json").out)["dims"]["longitude"] == 12


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, object], dict[str, Any]]:
    """Put a function that only writes down what it is given in the place of a slow one."""

    def put(module: str, function: str, answer: object) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def noted(*arguments: object, **named: object) -> object:
            seen.update(named, arguments=arguments)
            return answer

        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: noted}))
        return seen

    return put


SCORES = {
    "split": "test",
    "scores": {"vamoh": {"rmse": 0.3, "crps": 0.14}, "bilinear": {"rmse": 0.673, "mae": float("nan")}},
}


def test_evaluate_prints_a_table_and_writes_json(
    vamoh: Callable[..., Any], stand_in: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    seen = stand_in("pipelines.products.evaluate", "evaluate", SCORES)
    ended = vamoh("evaluate", "m", "--store", "s.zarr", "--factor", "2", "--members", "4", "--json", "scores.json")
    assert ended.code == 0
    assert seen == {
        "arguments": ("m", "s.zarr"),
        "split": "test",
        "factor": 2,
        "every": 1,
        "members": 4,
        "seed": 0,
        "reference": None,
        "attention": 0.0,
        "curve": (),
        "report": None,
    }
    assert [line.split() for line in ended.out.splitlines()] == [
        ["split", "test"],
        [],
        ["area-weighted", "rmse", "crps", "mae"],
        ["vamoh", "0.3", "0.14"],
        ["bilinear", "0.673", "nan"],
    ]
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["bilinear"] == {"rmse": 0.673, "mae": None}
    assert json.loads(vamoh("evaluate", "m", "--store", "s.zarr", "--json", "-").out)["split"] == "test"


def test_evaluate_prints_what_the_scores_do_not_tell(
    vamoh: Callable[..., Any], stand_in: Callable[..., dict[str, Any]]
) -> None:
    row = {"factor": 2, "every": 1, "input_km": 43.2, "output_km": 21.6, "trained": False, "rmse": {"vamoh": 0.4}}
    ranks = {"chi_square": 20.0, "degrees": 16.0, "p_value": 0.2, "uneven": 0.01, "coverage_90": 0.88}
    scales = {"effective_km": {"vamoh": 40.0, "bilinear": 180.0}, "wavelength_km": [1.0], "power": {}}
    told = {"scales": scales, "reliability": {**ranks, "expected_coverage_90": 0.9}, "curve": [row]}
    seen = stand_in("pipelines.products.evaluate", "evaluate", SCORES | told)
    ended = vamoh("evaluate", "m", "--store", "s.zarr", "--curve", "2, 4", "--attention", "9", "--report", "p.html")
    assert (seen["curve"], seen["attention"], seen["report"]) == ((2, 4), 9.0, Path("p.html"))
    assert "effective resolution, km  vamoh 40, bilinear 180" in ended.out
    assert "90 % interval             covers 0.88, reliable 0.9" in ended.out
    assert ended.out.splitlines()[-1].split() == "43 to 22 km, not trained on 0.4".split()
    assert "wavelength" not in ended.out
    refused = vamoh("evaluate", "m", "--store", "s.zarr", "--curve", "2,half")
    assert (
        refused.code == 2 and "--curve expects whole numbers of at least 2 such as 2,4,8, got '2,half'" in refused.err
    )


def test_downscale_hands_every_option_on(vamoh: Callable[..., Any], stand_in: Callable[..., dict[str, Any]]) -> None:
    seen = stand_in("pipelines.products.downscale", "downscale_file", {"output": "o.nc", "sizes": {"time": 1}})
    line = "downscale m i.nc o.nc --resolution 0.1 --members 3 --region -10,50,2,58 --seed 7 --time 2019"
    ended = vamoh(*line.split(), "--also", "spread, q05", "--conserve", "--workers", "2")
    assert ended.out == "output  o.nc\nsizes   time 1\n"
    assert seen.pop("progress") is not None
    seen.pop("say")("going on")
    assert seen == {
        "arguments": ("m", "i.nc", "o.nc"), "factor": None, "resolution": 0.1, "like": None, "points": None,
        "members": 3, "region": (-10.0, 50.0, 2.0, 58.0), "seed": 7, "variable": "t2m", "units": None, "time": "2019",
        "also": ("spread", "q05"), "conserve": True, "workers": 2, "overwrite": False,
    }  # fmt: skip


def test_train_hands_every_option_on_and_says_what_it_left(
    vamoh: Callable[..., Any], stand_in: Callable[..., dict[str, Any]]
) -> None:
    result = SimpleNamespace(
        name="first",
        checkpoint=Path("runs/first/best"),
        run_id="0a",
        metrics={"validation_crps": 0.15123},
        model_version="1",
    )
    seen = stand_in("pipelines.training.train", "train", result)
    options = "--set seed=5 --workers 1:4 --name first --register t2m --skip-corrupt --max-failures 3"
    ended = vamoh(*f"train era5 --store s.zarr {options}".split())
    assert seen["arguments"][0].seed == 5
    assert {key: seen[key] for key in ("workers", "name", "resume", "register", "skip_corrupt", "max_failures")} == {
        "workers": (1, 4), "name": "first", "resume": False, "register": "t2m", "skip_corrupt": True, "max_failures": 3
    }  # fmt: skip
    assert "models:/t2m/1" in ended.out
    assert "0.1512" in ended.out


def test_models_are_listed_with_their_aliases(
    vamoh: Callable[..., Any], stand_in: Callable[..., dict[str, Any]]
) -> None:
    row = {"name": "t2m", "version": "2", "aliases": ["challenger"], "run_id": "0a" * 16, "created": 1552003200000,
           "scores": {"validation_crps": 0.15}}  # fmt: skip
    stand_in("pipelines.training.registry", "list_models", [row])
    assert vamoh("models", "list").out.splitlines()[1].split() == [
        "t2m", "2", "challenger", "2019-03-08", "00:00", "0.15"
    ]  # fmt: skip
    assert json.loads(vamoh("models", "list", "--json").out) == [row]
    stand_in("pipelines.training.registry", "list_models", [])
    assert vamoh("models", "list").out.startswith("no model is registered")
