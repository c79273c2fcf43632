from __future__ import annotations

import numpy as np

from pellucid.textbook.sets import Sets


def test_members_are_exactly_those_that_share_a_mean() -> None:
    """Move one number: the standardised ones that change are its set's."""
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    for sets in (Sets(x.shape, (0, 2), (1,)), Sets(x.shape, (1, 2), (1, 2)), Sets((2, 2, 2, 3), (2, 3), (1,))):
        index = (1, 2, 1)
        moved = x.copy()
        moved[index] += 1
        changed = np.argwhere(~np.isclose(sets.standardise(x, 0)[0], sets.standardise(moved, 0)[0]))
        members = sets.members(index, x.shape)
        assert len(members) == sets.size
        assert {tuple(i) for i in changed.tolist()} == {tuple(i) for i in members.tolist()}


def test_parameters_stand_along_their_axes() -> None:
    x = np.zeros((2, 4, 3))
    sets = Sets(x.shape, (0, 2), (1,))
    assert sets.per_channel(np.arange(4.0), x).shape == (1, 4, 1)
    assert sets.per_channel(None, x).tolist() == [[[1.0]]]
    assert sets.others(x) == (0, 2)
