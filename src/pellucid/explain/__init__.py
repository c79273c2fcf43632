"""Why is this number what it is: recorded passes of networks, and what every number in them was made of.

`Tape` is a recorded pass; it opens without torch. Recording one takes `pellucid.explain.record`, which needs torch.
"""

from pellucid.explain.node import Clipping, Node, Pixels, Step, Update, operation_of
from pellucid.explain.tape import Tape

__all__ = ["Clipping", "Node", "Pixels", "Step", "Tape", "Update", "operation_of"]
