"""The cells of a heat map: a sweep's trials by the values of two keys, over seeds and over all other keys."""

from __future__ import annotations

from dataclasses import dataclass

from tuning.axes import Axis
from tuning.record import SweepRecord, TrialRecord
from tuning.scores import settled, standard_deviation


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The trials of one pair of values.

    Attributes:
        column, row: Its place among the axes' cells.
        trials: All of them, those without a score included.
        mean: Of the scores of those that finished; where none did, of those that were stopped early; None without any.
        spread: Their standard deviation; None with fewer than two.
        finished: Whether the mean is of trials that finished.
    """

    column: int
    row: int
    trials: tuple[TrialRecord, ...]
    mean: float | None
    spread: float | None
    finished: bool

    @property
    def failed(self) -> bool:
        """Whether no trial of it came through."""
        return all(trial.state == "FAILED" for trial in self.trials)


def cells_of(record: SweepRecord, across: Axis, down: Axis) -> list[Cell]:
    """The cells that have a trial.

    Args:
        record: The sweep.
        across, down: Two searched keys.
    """
    found = []
    for column, left in enumerate(across.cells()):
        for row, low in enumerate(down.cells()):
            trials = tuple(each for each in record.trials if within(across, each, left) and within(down, each, low))
            if trials:
                known = settled(record, trials)
                scores = [each.score for each in known]
                found.append(
                    Cell(
                        column=column,
                        row=row,
                        trials=trials,
                        mean=sum(scores) / len(scores) if scores else None,
                        spread=standard_deviation(scores),
                        finished=bool(known) and known[0].trial.state == "FINISHED",
                    )
                )
    return found


def best_of(record: SweepRecord, cells: list[Cell]) -> Cell | None:
    """The cell of the best mean; None where none has a score."""
    scored = [cell for cell in cells if cell.mean is not None]
    choose = min if record.mode == "min" else max
    return choose(scored, key=lambda cell: cell.mean or 0.0, default=None)


def within(axis: Axis, trial: TrialRecord, cell: tuple[float, float, str]) -> bool:
    """Whether a trial's value lies in a cell of an axis."""
    return cell[0] <= axis.position(trial.values) < cell[1]
