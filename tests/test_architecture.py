"""The house rules that a machine can check."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipelines.config import load_config, presets

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vamoh", "pipelines", "tuning", "infra")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imports(path: Path) -> Iterator[str]:
    """The first names of all that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_model_is_mathematics_on_tensors() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "torch", "vamoh"}
    found = {(path.name, name) for path in (ROOT / "vamoh").rglob("*.py") for name in imports(path)}
    assert {pair for pair in found if pair[1] not in allowed} == set()


def test_nothing_imports_the_tests() -> None:
    assert [path for path in SOURCES if "tests" in set(imports(path))] == []


def test_every_file_is_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 350} == {}


def test_nothing_is_unpickled() -> None:
    modules = {"cloudpickle", "dill", "joblib", "pickle", "shelve"}
    assert [path.name for path in SOURCES if modules & set(imports(path))] == []
    calls = re.compile(r"torch\.load\((?![^)]*weights_only=True)|allow_pickle\s*=\s*True")
    assert [(path.name, found) for path in SOURCES for found in calls.findall(path.read_text())] == []


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "presets").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_preset_loads_and_says_what_it_is_for(path: Path) -> None:
    assert path.stem in presets()
    assert load_config(path.stem).description


def test_the_lock_holds_one_exact_version_of_everything_that_is_asked_for() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    locked = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}
    assert len(locked) == len(lines)
    assert locked["torch"] == "2.13.0"
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["demo"], *extras["grib"], *extras["dev"]]:
        asked = Requirement(text)
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        assert asked.specifier.contains(locked[name]), text


def test_the_wheel_carries_everything_that_the_program_reads(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tree / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        tree,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("vamoh-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    needed = {path.relative_to(tree).as_posix() for package in PACKAGES for path in (tree / package).rglob("*")
              if path.is_file()}  # fmt: skip
    assert needed - packed == set()
    assert {name.split("/")[0] for name in packed if ".dist-info" not in name} == set(PACKAGES)


def test_the_coastlines_are_found_through_the_package() -> None:
    assert files("pipelines.products").joinpath("coastlines.npz").is_file()
