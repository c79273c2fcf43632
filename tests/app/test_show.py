from __future__ import annotations

import pytest

from pellucid.app.show import _time, sentence


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_times_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert _time(seconds) == text


def test_an_accuracy_never_stands_alone() -> None:
    scores = {"accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "n": 1234, "baseline": 0.3}
    text = sentence(scores, "val")
    assert "0.400 to 0.600" in text
    assert "n = 1,234" in text
    assert "0.300" in text
