"""Whole sweeps over stores whose law is known: does a search over K find the regimes, and one over L the clusters?

    python -m tests.benchmarks.proof [regimes] [clusters] [--folder FOLDER]

Both, where none is named: grids with three seeds a point, through `tuning.sweep.tune` as `vamoh tune` runs it. Prints
the validation bound of every point with the spread of its seeds, what the sweep chose, and by how much: the least
distance between the seeds of what it chose and those of the plain model (K = 1, L = 0), against the range of the seeds.
FOLDER keeps the stores, the sweeps and their reports. A minute or two each on two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.cli.live import Live
from pipelines.training.checkpoint import load_checkpoint
from pipelines.training.plan import Plan
from tests.tuning.regimes import (
    CLUSTERS_SPACE,
    REGIMES_SPACE,
    Made,
    share_of_a_kind,
    share_recognised,
    write_clusters,
    write_regimes,
)
from tuning.record import FILE, SweepRecord
from tuning.scores import ranked_points
from tuning.space import load_space
from tuning.sweep import SweepResult, tune
from tuning.wording import duration
from vamoh import VAMoH

Share = Callable[[Plan, VAMoH, Made], float]


def main() -> None:
    """Run both sweeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", choices=["regimes", "clusters"], default=["regimes", "clusters"])
    parser.add_argument("--folder", type=Path, help="where everything is kept; else it is thrown away")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown:
        folder = Path(thrown) if asked.folder is None else asked.folder
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if "regimes" in asked.stores:
            regimes = write_regimes(Path("regimes.zarr"))
            search(regimes, REGIMES_SPACE, "model.components", [1, 2, 3, 5], share_recognised)
        if "clusters" in asked.stores:
            clusters = write_clusters(Path("clusters.zarr"))
            search(clusters, CLUSTERS_SPACE, "model.flow_depth", [0, 4, 8], share_of_a_kind)


def search(made: Made, space_file: Path, key: str, choices: list[int], share: Share) -> None:
    """Sweep over one key, and print what came of it; the first choice is the plain model."""
    space, name = load_space(str(space_file)), space_file.stem
    space = space.model_copy(update={"search": {key: space.search[key].model_copy(update={"choice": tuple(choices)})}})
    with Live(space.total, space.metric) as live:
        result = tune(space, made.store.path, name=name, show=live.show)
    record = SweepRecord.from_json(result.folder / FILE)
    print(f"\n{name}: {len(record.trials)} trials in {duration(record.seconds)}, report {result.report}")
    scores: dict[int, list[float]] = {}
    for point in sorted(ranked_points(record), key=lambda each: each.values[key]):
        value = point.values[key]
        scores[value] = [trial.best for trial in point.trials if trial.best is not None]
        kept = [load_checkpoint(result.folder / trial.name / "best") for trial in point.trials]
        shares = [share(checkpoint.plan, model, made) for checkpoint, model in kept]
        print(
            f"  {key} {value}: {record.metric} {point.mean:.3f} ± {point.spread or 0:.3f} (seeds "
            f"{', '.join(f'{score:.3f}' for score in scores[value])}); {share.__name__} "
            f"{', '.join(f'{share:.3f}' for share in shares)}"
        )
    _compare(result, scores, key, choices[0])


def _compare(result: SweepResult, scores: dict[int, list[float]], key: str, plain: int) -> None:
    chosen = result.best.values[key]
    gap = min(scores[chosen]) - max(scores[plain])
    noise = max(max(each) - min(each) for each in (scores[chosen], scores[plain]))
    print(f"  chosen: {key} {chosen}; above {plain} by {gap:.3f} nats a value, seeds lie {noise:.3f} apart")


if __name__ == "__main__":
    main()
