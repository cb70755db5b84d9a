"""A sweep whose driver is ended, politely or not, goes on with no trial lost and none run twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipelines.data.store import Store
from pipelines.training.tracking import client
from tuning.record import SweepRecord

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
TRIALS, EPOCHS = 6, 24  # long enough that the record is written several times in a trial
RECORD = Path("runs/ended/sweep.json")


@pytest.fixture(scope="module")
def command(workplace: Path, tiny: str, store: Store) -> list[str]:
    """`vamoh tune`, one trial at a time."""
    rates = [1e-3 * (number + 1) for number in range(TRIALS)]
    search = {"training.learning_rate": {"choice": rates}}
    space = {"train": tiny, "set": {"training.epochs": EPOCHS}, "search": search, "method": "grid", "asha": False}
    Path("space.yaml").write_text(yaml.safe_dump(space))
    program = "import sys; from infra.cli import main; sys.exit(main())"
    options = ["--store", store.path, "--name", "ended", "--concurrent", "1", "--json"]
    return [sys.executable, "-c", program, "tune", "space.yaml", *options]


def begin(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def until(condition: Callable[[SweepRecord], bool], driver: subprocess.Popen[str], seconds: float = 240) -> SweepRecord:
    """Wait for the record to be so."""
    patience = time.monotonic() + seconds
    while True:
        if RECORD.exists():
            record = SweepRecord.from_json(RECORD)
            if condition(record):
                return record
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < patience, "it takes too long"
        time.sleep(0.05)


def over(record: SweepRecord) -> int:
    return sum(trial.state != "RUNNING" for trial in record.trials)


def began(number: int) -> int:
    return Path(f"runs/ended/trial-{number:03d}/trial.jsonl").read_text().count('"began"')


def test_a_sweep_goes_on_after_ctrl_c_and_after_kill_9(command) -> None:
    driver = begin(command)
    until(lambda record: over(record) >= 1 and bool(record.trials[-1].curve), driver)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    stopped = SweepRecord.from_json(RECORD)
    assert f"{over(stopped)} of {TRIALS} trials are over, saved in {RECORD.absolute().parent}: --resume" in said
    assert "Traceback" not in said
    mlflow = client()
    assert mlflow.get_run(stopped.run_id).info.status == "KILLED"
    statuses = [mlflow.get_run(trial.run_id).info.status for trial in stopped.trials]
    assert statuses == ["KILLED" if trial.state == "RUNNING" else "FINISHED" for trial in stopped.trials]

    driver = begin([*command, "--resume"])
    until(lambda record: over(record) >= over(stopped) + 1 and bool(record.trials[-1].curve), driver)
    driver.kill()
    driver.communicate()
    killed = SweepRecord.from_json(RECORD)
    assert 0 < over(killed) < TRIALS

    driver = begin([*command, "--resume"])
    out, said = driver.communicate(timeout=240)
    assert driver.returncode == 0, said
    told = json.loads(out)
    assert told["states"] == {"FINISHED": TRIALS} and told["run_id"] == stopped.run_id
    record = SweepRecord.from_json(RECORD)
    rates = [trial.values["training.learning_rate"] for trial in record.trials]
    assert rates == [1e-3 * (number + 1) for number in range(TRIALS)]
    ends = {before.number for ended in (stopped, killed) for before in ended.trials if before.state == "RUNNING"}
    for trial in record.trials:
        assert [point.epoch for point in trial.curve] == list(range(1, EPOCHS + 1))
        assert began(trial.number) == 1 or trial.number in ends
        history = mlflow.get_metric_history(trial.run_id, "validation_crps")
        assert [value.step for value in history] == list(range(1, EPOCHS + 1))
        assert mlflow.get_run(trial.run_id).info.status == "FINISHED"
    for ended in (stopped, killed):
        for before in ended.trials:
            if before.state == "FINISHED":
                now = record.trials[before.number]
                assert before.run_id in ("", now.run_id)  # MLflow may not have been told of it yet
                assert replace(now, run_id=before.run_id) == before
    experiment = mlflow.get_run(record.run_id).info.experiment_id
    assert len(mlflow.search_runs([experiment])) == TRIALS + 1
    assert mlflow.get_run(record.run_id).info.status == "FINISHED"
