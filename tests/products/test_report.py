"""The report is one page, whole, self-contained and readable."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.products.report import write_report

SCORES = {
    "VAMoH": {"rmse": 0.91, "crps": 0.41, "bias": -0.02, "spread_skill": 0.95, "coverage_90": 0.75},
    "local ridge": {"rmse": 0.925, "crps": 0.413, "bias": -0.009, "spread_skill": 0.919},
    "bilinear": {"rmse": 1.757, "crps": 0.906, "bias": np.nan},
}


class Page(HTMLParser):
    """Collects start tags, the text of cells, and checks that every element is closed."""

    void = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.text[tag][-1] += data


def a_figure() -> Figure:
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 2, 3])
    return figure


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_report(
        tmp_path / "out" / "report.html",
        title="2 m temperature, 46 × 90 to 181 × 360 <points>",
        summary="Given 4° fields & nothing else.",
        scores_table=SCORES,
        figures=[("Maps", 'The "error" is small over the sea.', a_figure())],
        provenance={
            "Data": "ERA5, https://example.org/era5",
            "Licence": "CC-BY 4.0",
            "Seed": 0,
            "Command": "vamoh demo",
        },
    )


def test_the_page_refers_to_nothing_outside_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
        assert tag not in {"script", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import|<script", text)


def test_the_page_says_how_much_better_than_bilinear(page: Path) -> None:
    tiles = [text for text in Page(page.read_text()).text["div"] if "lower than" in text]
    assert any("RMSE" in text and "48\xa0% lower than bilinear (1.757 K)" in text for text in tiles)
    assert any("CRPS" in text and "55\xa0%" in text for text in tiles)


def test_the_table_has_units_and_emphasises_the_best(page: Path) -> None:
    text = page.read_text()
    parsed = Page(text)
    headers = parsed.text["th"]
    assert headers[:6] == ["Method", "RMSE (K)", "Bias (K)", "CRPS (K)", "Spread / skill", "90 % interval"]
    best = re.findall(r'<td class="best">★&nbsp;([^<]+)</td>', text)
    assert best == ["0.910", "0.410", "0.950", "−0.009"]
    assert "−48&nbsp;%" in text
    assert text.count("<td>–</td>") == 4  # scores that do not exist or are not finite


def test_what_people_type_is_shown_and_not_interpreted(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<points>" not in text
    parsed = Page(text)
    assert parsed.text["h1"] == ["2 m temperature, 46 × 90 to 181 × 360 <points>"]
    assert "Given 4° fields & nothing else." in parsed.text["p"]
    assert parsed.text["dd"] == ["ERA5, https://example.org/era5", "CC-BY 4.0", "0", "vamoh demo"]


def test_figures_are_embedded_with_an_alternative_text_and_their_size(page: Path) -> None:
    images = [attributes for tag, attributes in Page(page.read_text()).tags if tag == "img"]
    assert len(images) == 1
    assert images[0]["alt"] == 'Maps. The "error" is small over the sea.'
    assert (images[0]["src"] or "").startswith("data:image/png;base64,iVBOR")
    assert int(images[0]["width"] or 0) > int(images[0]["height"] or 0) > 300


def test_nothing_half_written_stays(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page.read_text()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(page, title="new", summary="", scores_table={}, figures=[], provenance={})
    assert page.read_text() == before
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]


def test_a_page_without_scores_or_figures_is_still_a_page(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r.html", title="t", summary="s", scores_table={}, figures=[], provenance={})
    assert Page(page.read_text()).text["h1"] == ["t"]


def test_an_unknown_score_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column for the scores .'mse'.; expected some of"):
        write_report(
            tmp_path / "r.html", title="", summary="", scores_table={"a": {"mse": 1.0}}, figures=[], provenance={}
        )
