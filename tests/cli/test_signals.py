from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TextIO

import pytest

from planasonix_provider.cli.signals import Interrupted, SignalHandler, wait_for_input
from tests.cli.conftest import press


def test_a_signal_interrupts_with_the_exit_code_of_a_shell() -> None:
    for number, code in {signal.SIGINT: 130, signal.SIGTERM: 143}.items():
        with SignalHandler(print), pytest.raises(Interrupted) as interrupt:
            press(number)
        assert (interrupt.value.code, interrupt.value.in_flight) == (code, False)


def test_a_deferred_signal_interrupts_at_the_next_check() -> None:
    said: list[str] = []
    with SignalHandler(said.append) as interrupts:
        with interrupts.deferred("it is done"):
            press()
        assert said == ["Interrupted: the command ends when it is done. A second interrupt ends it at once."]
        with pytest.raises(Interrupted) as interrupt:
            interrupts.check()
        assert not interrupt.value.in_flight
        interrupts.check()


def test_a_check_does_not_interrupt_an_uninterruptible_block() -> None:
    with SignalHandler(str) as interrupts:
        with interrupts.deferred("it is done", uninterruptible=True):
            press()
            interrupts.check()
        with pytest.raises(Interrupted):
            interrupts.check()


def test_a_second_signal_is_not_deferred() -> None:
    with SignalHandler(str) as interrupts:
        with interrupts.deferred("it is done"):
            press()
            with pytest.raises(Interrupted) as interrupt:
                press()
        interrupts.check()
    assert interrupt.value.in_flight


def test_no_signal_is_lost_just_before_the_wait_for_input() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as file, os.fdopen(writer, "w"):
        for _ in range(500):
            with SignalHandler(print), ThreadPoolExecutor(1) as thread, pytest.raises(Interrupted):
                wait_for_input(_press_in_thread(file, thread))


def test_input_ends_the_wait_for_input() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as file, os.fdopen(writer, "w") as other:
        print("yes", file=other, flush=True)
        wait_for_input(file)
        assert file.readline() == "yes\n"


def _press_in_thread(file: TextIO, thread: ThreadPoolExecutor) -> TextIO:
    thread.submit(press)
    return file
