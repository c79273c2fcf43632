"""`pellucid predict`."""

from __future__ import annotations

import json

from pellucid import bundle
from pellucid.app.flags import Predict
from pellucid.app.show import console
from pellucid.data.decode import BadImage


def main(options: Predict) -> int:
    """Answer for each file; 3 when a file could not be read, the others answered all the same."""
    recogniser = bundle.load(options.run)
    out, code = console(), 0
    for file, answer in zip(options.files, recogniser.predict_each(options.files), strict=True):
        if isinstance(answer, BadImage):
            code = answer.exit_code
            if options.json:
                print(json.dumps({"file": file, "error": str(answer)}, ensure_ascii=False), flush=True)
            else:
                console(to_stderr=True).print(f"pellucid: {answer}", soft_wrap=True)
        elif options.json:
            print(json.dumps(answer.to_json(), ensure_ascii=False, allow_nan=False), flush=True)
        else:
            best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:3]
            out.print(f"{file}: " + ", ".join(f"{name} {share:.1%}" for name, share in best), soft_wrap=True)
    return code
