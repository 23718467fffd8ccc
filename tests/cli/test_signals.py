from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

import pytest

from planasonix_provider.cli.signals import Interrupted, SignalHandler, wait_for_input
from tests.cli.conftest import press


def test_a_signal_interrupts_and_gives_the_code_that_shells_give() -> None:
    for number, code in {signal.SIGINT: 130, signal.SIGTERM: 143}.items():
        with SignalHandler(print), pytest.raises(Interrupted) as interrupt:
            press(number)
        assert (interrupt.value.code, interrupt.value.in_flight) == (code, False)


def test_one_that_is_held_comes_when_it_is_let_through() -> None:
    said: list[str] = []
    with SignalHandler(said.append) as interrupts:
        with interrupts.deferred("it is done"):
            press()
        assert said == ["Interrupted: the command ends when it is done. A second interrupt ends it at once."]
        with pytest.raises(Interrupted) as interrupt:
            interrupts.check()
        assert not interrupt.value.in_flight
        interrupts.check()


def test_one_that_is_held_as_a_whole_is_not_let_through_amid_it() -> None:
    with SignalHandler(str) as interrupts:
        with interrupts.deferred("it is done", uninterruptible=True):
            press()
            interrupts.check()
        with pytest.raises(Interrupted):
            interrupts.check()


def test_a_second_one_is_not_held() -> None:
    with SignalHandler(str) as interrupts:
        with interrupts.deferred("it is done"):
            press()
            with pytest.raises(Interrupted) as interrupt:
                press()
        interrupts.check()
    assert interrupt.value.in_flight


def test_no_signal_is_lost_however_close_to_the_wait_for_input_it_comes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as file, os.fdopen(writer, "w"):
        for _ in range(500):
            with SignalHandler(print), ThreadPoolExecutor(1) as thread, pytest.raises(Interrupted):
                wait_for_input(_pressing(file, thread))


def test_input_ends_the_wait_for_it() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as file, os.fdopen(writer, "w") as other:
        print("yes", file=other, flush=True)
        wait_for_input(file)
        assert file.readline() == "yes\n"


def _pressing(file: TextIO, thread: ThreadPoolExecutor) -> TextIO:
    thread.submit(press)
    return file
