"""What a trial leaves in its folder, and how much room it is given."""

import json
from pathlib import Path

import pytest

from tuning.record import CurvePoint, SweepRecord, TrialRecord
from tuning.room import Room
from tuning.trace import EVENTS, note, read_trace


def write(path: Path, lines: list[dict[str, object]], rest: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + rest)


def test_time_between_the_attempts_is_not_counted(tmp_path: Path) -> None:
    events = [{"at": 1_000, "began": True}, {"at": 4_000, "error": "RuntimeError: x"}, {"at": 60_000, "began": True}]
    write(tmp_path / EVENTS, [*events, {"at": 66_000, "ended": "FINISHED"}])
    steps = [(1, 2_000), (2, 3_000), (3, 61_000), (4, 62_000), (5, 64_000)]
    lines = [
        {"step": step, "timestamp": at, "metrics": {"samples_per_second": float(step), "validation_crps": 1.0 / step}}
        for step, at in steps
    ]
    write(tmp_path / "metrics.jsonl", lines, rest='{"step": 6, "timest')
    trace = read_trace(tmp_path, epochs=5, validate_every=2)
    assert [(point.epoch, point.seconds) for point in trace.curve] == [(2, 2.0), (4, 5.0), (5, 7.0)]
    assert (trace.attempts, trace.errors, trace.ended, trace.seconds) == (2, ("RuntimeError: x",), "FINISHED", 9.0)
    assert trace.seconds_per_sample == pytest.approx(1 / 5)


def test_a_trial_that_has_not_begun_has_left_nothing(tmp_path: Path) -> None:
    trace = read_trace(tmp_path, epochs=5, validate_every=2)
    assert (trace.attempts, trace.curve, trace.seconds, trace.ended) == (0, (), 0.0, None)


def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path: Path) -> None:
    note(tmp_path, began=True)
    with (tmp_path / EVENTS).open("a") as file:
        file.write('{"at": 12')
    note(tmp_path, began=True)
    note(tmp_path, ended="FAILED")
    trace = read_trace(tmp_path, epochs=1, validate_every=1)
    assert (trace.attempts, trace.ended) == (2, "FAILED")


NODES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}, {"CPU": 0.0}]


@pytest.mark.parametrize(
    ("room", "fit"),
    [
        (Room(), 7),
        (Room(cpus=2), 3),
        (Room(cpus=3), 2),
        (Room(gpus=0.25), 4),
        (Room(gpus=0.2, cpus=2), 2),
        (Room(gpus=1), 1),
        (Room(workers=2), 3),
        (Room(workers=7), 1),
        (Room(concurrent=2), 2),
        (Room(concurrent=20), 7),
    ],
)
def test_as_many_trials_run_as_fit(room: Room, fit: int) -> None:
    assert room.at_a_time(NODES) == fit


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"workers": -1}, "workers of a trial must be 0 .* or more, got -1"),
        ({"cpus": 0}, "a trial needs at least 1 CPU, got 0"),
        ({"gpus": 1.5}, "a fraction of one, or whole ones, got 1.5"),
        ({"concurrent": 0}, "at least 1 trial must run at a time, got 0"),
        ({"workers": 2, "gpus": 1.0}, "leave out --cpus-per-trial and --gpus-per-trial"),
    ],
)
def test_room_that_makes_no_sense_is_refused(given, said) -> None:
    with pytest.raises(ValueError, match=said):
        Room(**given)


def trial(number: int, value: float | None, state: str = "FINISHED", components: int = 1, seed: int = 0) -> TrialRecord:
    curve = () if value is None else (CurvePoint(epoch=1, seconds=1.0, metrics={"validation_crps": value}),)
    return TrialRecord(
        number=number, name=f"trial-{number:03d}", values={"model.components": components}, seed=seed,
        state=state, curve=curve, best=value,  # type: ignore[arg-type]
    )  # fmt: skip


def record(*trials: TrialRecord, mode: str = "min") -> SweepRecord:
    return SweepRecord(
        name="a", space={"train": "x"}, metric="validation_crps", mode=mode, store="s", fingerprint="f",  # type: ignore[arg-type]
        started="2026-01-01T00:00:00+00:00", seconds=1.0, trials=trials, versions={},
    )  # fmt: skip


def test_the_best_is_of_the_point_that_is_best_over_its_seeds() -> None:
    lucky = [trial(0, 0.1, components=1), trial(1, 0.9, components=1, seed=1)]
    steady = [trial(2, 0.3, components=2), trial(3, 0.2, components=2, seed=1)]
    pruned = [trial(4, 0.01, components=3), trial(5, 0.5, "PRUNED", components=3, seed=1)]
    assert record(*lucky, *steady).best == steady[1]
    assert record(*lucky, *steady, *pruned).best == steady[1], "a seed of it was stopped early"
    assert record(*pruned).best == pruned[0], "there is no other"
    assert record(*lucky, *steady, mode="max").best == lucky[1]
    assert record(trial(0, None, "FAILED"), trial(1, 0.1, "PRUNED")).best is None


def test_a_record_survives_its_file_and_what_is_not_a_number(tmp_path: Path) -> None:
    before = record(trial(0, 0.5), trial(1, None, "FAILED"))
    before.to_json(tmp_path / "sweep.json")
    assert SweepRecord.from_json(tmp_path / "sweep.json") == before
    record(trial(0, float("nan"))).to_json(tmp_path / "sweep.json")
    assert SweepRecord.from_json(tmp_path / "sweep.json").trials[0].best is None
