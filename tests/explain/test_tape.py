from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.explain.engine import everyday, recurrent
from tests.explain.test_update import trained

from pellucid.errors import UsageError
from pellucid.explain import Explanation, Tape


def test_a_number_or_a_whole_array_is_read() -> None:
    tape = trained("adam")
    assert tape.value("fc[1,2]") == float(tape.values["fc"][1, 2])
    assert isinstance(tape.value("fc[1,2]"), float)
    assert isinstance(tape.value("labels[1]"), float)
    assert tape.value("loss") == float(tape.values["loss"])
    for address, array in (
        ("fc", tape.values["fc"]),
        ("fc.grad", tape.gradients["fc"]),
        ("fc.weight.grad", tape.gradients["fc.weight"]),
        ("fc.weight.next", tape.after["fc.weight"]),
    ):
        assert tape.value(address) is array
    assert tape.update is not None
    assert tape.value("fc.weight.state.m") is tape.update.parameters["fc.weight"].state["m"]
    assert tape.value("fc.bias.state.v[2]") == float(tape.update.parameters["fc.bias"].state["v"][2])


def test_a_container_stands_for_its_output() -> None:
    tape = everyday()
    assert tape.node("stem").name == "pool"
    assert tape.value("stem[1,2,2]") == tape.value("pool[1,2,2]")
    # A node's own name is never shadowed.
    shadowed = replace(tape, aliases={"pool": "conv1"})
    assert shadowed.node("pool").name == "pool"


def test_an_unknown_node_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"conv1\.wight: the tape has no value of that name: did you mean 'conv1.weight'"
    ):
        everyday().node("conv1.wight")


def test_consumers_are_what_reads_a_value_and_where() -> None:
    tape = everyday()

    def readers(name: str) -> list[tuple[str, list[int]]]:
        return [(node.name, at) for node, at in tape.consumers(name)]

    assert readers("add") == [("square", [0, 1])]
    assert readers("pool") == [("conv2", [0]), ("add", [1])]
    assert readers("conv2.weight") == [("conv2", [1]), ("conv2@2", [1])]
    assert readers("loss") == readers("nothing") == []
    assert [node.name for node, _ in recurrent().consumers("input")] == ["lstm"], "not its other outputs, nor its gates"


def test_a_family_is_the_outputs_and_the_interior_of_one_operation() -> None:
    tape = recurrent(layers=1)
    assert [node.name for node in tape.family("lstm")][:3] == ["lstm", "lstm.h_n", "lstm.c_n"]
    assert len(tape.family("lstm")) == 9
    assert tape.family("lstm.h_n") == []


def test_why_answers_for_every_kind_of_address() -> None:
    tape = trained("adam")
    for address in ("fc[1,2]", "fc.grad[1,2]", "fc.weight[1,2]", "fc.weight.grad[1,2]", "fc.weight.next[1,2]", "loss"):
        made = tape.why(address)
        assert isinstance(made, Explanation)
        assert made.address == address


def test_every_terms_address_can_be_asked_in_turn() -> None:
    """Down from a logit, the loss's gradient and a step, to what is given."""
    for tape, start in (
        (everyday(training=True), "fc[1,2]"),
        (recurrent(), "loss"),
        (trained("adam"), "fc.bias.next[1]"),
    ):
        asked: set[str] = set()
        waiting = [start]
        while waiting and len(asked) < 60:
            address = waiting.pop()
            asked.add(address)
            terms = tape.why(address).terms
            step = max(1, len(terms) // 4)
            found = [one for term in terms[::step] for one in (term.address, term.factor) if one is not None]
            waiting += [one for one in found if one not in asked]
        assert len(asked) > 8


def test_further_questions_are_answered_from_the_tape() -> None:
    tape = everyday()
    field = tape.receptive_field("conv1[1,4,2,3]")
    assert field.count == 27
    assert set(zip(*(axis.tolist() for axis in np.nonzero(field.mask)), strict=True)) == {
        (1, c, h, w) for c in range(3) for h in range(2, 5) for w in range(3, 6)
    }
    chains = tape.path("fc[0,1]", k=3)
    assert [chain.links[0].address for chain in chains] == ["fc[0,1]"] * 3
    assert all(chain.links[-1].address.startswith("input[0,") for chain in chains)
    (layer,) = tape.sparsity()
    relu = tape.values["relu"]
    assert (layer.name, layer.active) == ("relu", float((relu != 0).mean()))
    flow = {layer.name: layer.gradient for layer in tape.gradient_flow().layers}
    assert flow["fc"] == pytest.approx(np.linalg.norm(tape.gradients["fc"].astype(float)))
    np.testing.assert_array_equal(tape.saliency(of="loss", image=1), np.abs(tape.gradients["input"][1]).max(axis=0))
    # A class's logit without the others: the same gradient as of a loss that is this logit.
    assert tape.saliency(2).shape == tape.grad_cam(2).shape == (8, 8)
    assert (tape.grad_cam() >= 0).all()


TORCHLESS = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not to be imported here")

sys.meta_path.insert(0, Refuses())
from pellucid.explain import Tape
tape = Tape.load(sys.argv[1])
print(tape.why("fc.weight.next[1,2]").text())
print(tape.why("fc.weight.grad[1,2]").value)
assert "torch" not in sys.modules
"""


def test_a_tape_opens_and_answers_without_torch(tmp_path: Any) -> None:
    tape = trained("adam", "norm")
    tape.save(tmp_path / "pass.tape")
    done = subprocess.run(
        [sys.executable, "-c", TORCHLESS, str(tmp_path / "pass.tape")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tape.why("fc.weight.next[1,2]").text() in done.stdout
    assert str(tape.why("fc.weight.grad[1,2]").value) in done.stdout


def test_a_tape_is_made_of_plain_parts() -> None:
    made = Tape(nodes=[], values={})
    assert (made.gradients, made.after, made.update, made.loss, made.notes, made.aliases) == (
        {},
        {},
        None,
        None,
        [],
        {},
    )
    other = Tape(nodes=[], values={"a": np.ones(2)})
    assert made.values == {}
    assert other.precision == "float32"
