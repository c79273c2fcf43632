from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from pellucid.training.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks(number: int) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        before_asking = interrupt.asked
        signal.raise_signal(number)
        assert (before_asking, interrupt.asked) == (False, True)
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


@pytest.fixture
def usual_handler() -> Iterator[None]:
    """Python's own answer to SIGINT, which a process begun in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_handler")
def test_the_second_signal_is_not_swallowed() -> None:
    with Interrupt():
        # Raised in this very thread: what is sent to the process may reach another first, and Python a little later.
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("usual_handler")
def test_under_torchrun_which_passes_the_signal_on_a_second_one_is_the_first_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_the_main_thread_nothing_listens() -> None:
    asked = []

    def enter() -> None:
        with Interrupt() as interrupt:
            asked.append(interrupt.asked)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert asked == [False]
