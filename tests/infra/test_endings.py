"""How a process of `vamoh` ends when something outside it ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The source is read so slowly that the store is half written when the signal comes.
SLOW_CLIMATE = """
import sys, time
import pipelines.data.writing as writing
from infra.cli import main

def read(field, start, stop):
    print("writing", flush=True)
    time.sleep(60)

writing._read = read
sys.exit(main(sys.argv[1:]))
"""


def start(*arguments: str | Path, cwd: Path, program: str = "") -> subprocess.Popen[str]:
    begin = ["-c", program] if program else ["-c", "import sys; from infra.cli import main; sys.exit(main())"]
    return subprocess.Popen(
        [sys.executable, *begin, *map(str, arguments)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip


def heed_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "vamoh: interrupted, no half-written result was left\n"),
        (signal.SIGTERM, 143, "vamoh: terminated, no half-written result was left\n"),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_leaves_one_line_and_no_half_written_store(
    number: signal.Signals, code: int, line: str, era5_sample: Path, tmp_path: Path
) -> None:
    process = start("data", "climate", era5_sample, "a.zarr", cwd=tmp_path, program=SLOW_CLIMATE)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert [path.name for path in tmp_path.iterdir()] == [f"a.zarr.tmp-{process.pid}"]
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error.endswith(line) and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_makes_no_noise(tmp_path: Path) -> None:
    process = start("config", "schema", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=30)
    assert error == ""
    assert process.returncode not in (0, None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    program = "import sys; from infra.cli import main; sys.exit(main(['config', 'schema']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "vamoh: error: No space left on device\n")
