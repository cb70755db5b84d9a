"""Long work: newer takes the place of older, Cancel ends it, and what goes wrong is a sentence."""

import threading
import time

import pytest

from infra.explorer.work import WENT_WRONG, Step, Work


def until(true, seconds: float = 10.0) -> None:
    stop = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < stop, "it did not happen"
        time.sleep(0.005)


def test_a_result_arrives() -> None:
    came: list[int] = []
    Work().start(lambda step: 42, came.append)
    until(lambda: came == [42])


def test_newer_work_takes_the_place_of_older() -> None:
    work, came, begun, ended = Work(), [], threading.Event(), threading.Event()

    def older(step: Step) -> str:
        try:
            begun.set()
            while True:
                step(0, 1)
                time.sleep(0.002)
        finally:
            ended.set()

    work.start(older, came.append)
    assert begun.wait(5)
    work.start(lambda step: "newer", came.append)
    assert ended.wait(5)  # it does not go on in vain
    until(lambda: came == ["newer"])


def test_a_slider_that_is_dragged_does_not_queue() -> None:
    work, came, done = Work(), [], []
    for number in range(200):
        work.start(
            lambda step, number=number: (time.sleep(0.005), step(0, 1), done.append(number))[2] or number, came.append
        )
    until(lambda: came == [199])
    assert len(done) < 20


def test_cancel_ends_it_and_nothing_comes() -> None:
    work, came, ended = Work(), [], threading.Event()

    def endless(step: Step) -> None:
        try:
            while True:
                step(1, 2)
                time.sleep(0.002)
        finally:
            ended.set()

    work.start(endless, came.append)
    until(lambda: work.busy)  # it takes long, so that its bar is shown
    work.cancel()
    assert ended.wait(5) and not work.busy
    time.sleep(0.05)
    assert came == [] and work.sentence == "" and not work.busy


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("expected a  grid"), "expected a grid"),
        (FileNotFoundError(2, "No such file or directory", "a.nc"), "a.nc: No such file or directory"),
        (ZeroDivisionError("secret"), WENT_WRONG),
    ],
)
def test_what_goes_wrong_is_a_sentence_on_the_page(error, said) -> None:
    work = Work()

    def failing(step: Step) -> None:
        raise error

    work.start(failing, lambda result: None)
    until(lambda: work.sentence == said)
    work.start(lambda step: None, lambda result: None)
    assert work.sentence == ""  # it is gone with the next work


def test_a_sentence_cannot_bring_html_along() -> None:
    work = Work()
    work.say("<img src=x onerror=alert(1)>")
    assert "<img" not in work._error.object
