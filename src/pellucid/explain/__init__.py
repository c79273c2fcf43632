"""Why is this number what it is: recorded passes of networks, and what every number in them was made of.

`Tape` is a recorded pass; it opens without torch. Recording one takes `pellucid.explain.record`, which needs torch.
"""

from pellucid.explain.explanation import Explanation
from pellucid.explain.node import Clipping, Node, Pixels, Step, Update, operation_of
from pellucid.explain.shares import Term
from pellucid.explain.tape import Tape

__all__ = ["Clipping", "Explanation", "Node", "Pixels", "Step", "Tape", "Term", "Update", "operation_of"]
