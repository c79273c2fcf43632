"""What Pellucid raises when the cause is the user's to mend: each names the value, the place and the remedy.

The command line turns each into one sentence on stderr and the exit code below; nobody sees a traceback for a
mistake of their own. Anything else that escapes is a defect of Pellucid's.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Characters of an unknown word that are compared with the known ones.
_LONGEST_WORD = 100


class PellucidError(Exception):
    """The run failed (exit code 1), and the message says what to do about it."""

    exit_code: ClassVar[int] = 1


class UsageError(PellucidError, ValueError):
    """What was asked for does not make sense: an unknown name, a negative rate, misfit layers (exit code 2)."""

    exit_code = 2


class DataError(PellucidError, ValueError):
    """The data was refused: missing, unreadable, one class only (exit code 3)."""

    exit_code = 3


class VerificationError(PellucidError):
    """A verification did not match (exit code 4)."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown word: its nearest neighbour, else all that would have been understood.

    >>> did_you_mean("lenet", ["lenet5", "quick"])
    "did you mean 'lenet5'?"
    >>> did_you_mean("alexandria", ["lenet5", "quick"])
    'known are: lenet5, quick'
    """
    known = list(known)
    # Comparing takes the product of the two lengths, and the word may be a whole file.
    near = difflib.get_close_matches(word[:_LONGEST_WORD].lower(), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
