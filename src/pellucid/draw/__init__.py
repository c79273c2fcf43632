"""Pictures of a run: its curves, its confusion matrix, sheets of images, feature maps.

Nothing here touches pyplot or the user's own settings of matplotlib, and every file is written atomically.
"""

from pellucid.draw.curves import curves
from pellucid.draw.grid import contact_sheet
from pellucid.draw.maps import colours, tiles
from pellucid.draw.matrix import confusion
from pellucid.draw.rates import sweep
from pellucid.draw.text import Readable, readable

__all__ = ["Readable", "colours", "confusion", "contact_sheet", "curves", "readable", "sweep", "tiles"]
