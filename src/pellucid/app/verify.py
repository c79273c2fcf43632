"""`pellucid verify`."""

from __future__ import annotations

import json

from pellucid import bundle
from pellucid.app.flags import Verify
from pellucid.app.show import console


def main(options: Verify) -> int:
    """Verify; a difference is raised, and becomes exit code 4."""
    worst = bundle.verify(options.run)
    if options.json:
        print(json.dumps({"run": options.run, "difference": worst}, ensure_ascii=False))
    else:
        console().print(f"{options.run}: the logits recorded, within {worst:.1g} of the largest", soft_wrap=True)
    return 0
