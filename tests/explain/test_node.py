from __future__ import annotations

import pytest

from pellucid.explain import Clipping, Node, operation_of
from pellucid.textbook import OPERATIONS


def test_an_operation_is_found_and_its_own_settings_alone() -> None:
    node = Node("lstm.0.f", "lstm", ("x",), {"of": "lstm", "output": "0.f", "recomputed": True})
    assert operation_of(node) == (OPERATIONS["lstm"], {})
    assert (node.first, node.is_primary) == ("lstm", False)
    conv = Node("conv", "convolution", ("x", "w", None), {"stride": (2, 2)})
    assert operation_of(conv) == (OPERATIONS["convolution"], {"stride": (2, 2)})
    assert (conv.first, conv.is_primary) == ("conv", True)


def test_a_loss_is_the_operation_that_it_names() -> None:
    loss = Node("loss", "loss", ("fc", "labels"), {"operation": "cross_entropy", "smoothing": 0.1})
    assert operation_of(loss) == (OPERATIONS["cross_entropy"], {"smoothing": 0.1})
    assert loss.attributes["operation"] == "cross_entropy", "the node is as it was"
    assert operation_of(Node("loss", "loss", ("fc",))) is None
    assert operation_of(Node("loss", "loss", ("fc",), {"operation": ["x"]})) is None


@pytest.mark.parametrize("op", ["input", "parameter", "buffer", "constant", "aten.cumsum.default"])
def test_what_no_rule_made_has_no_operation(op: str) -> None:
    assert operation_of(Node("a", op)) is None


def test_the_factor_of_clipping() -> None:
    assert Clipping("norm", 1.0, 4.0).factor == pytest.approx(0.25, rel=1e-6)
    assert Clipping("norm", 1.0, 0.5).factor == 1.0
    assert Clipping("norm", float("inf"), 4.0).factor == 1.0
    assert Clipping("value", 1.0).factor == 1.0
