"""Makes a torchvision importable whose compiled half does not fit the installed torch; import it before anything of transformers.

The published wheel is linked against CUDA: beside a CPU-only torch its operators do not load, and its import dies of the two whose
schemas it takes for granted. Preparing images needs no operator, so that declaring the two is enough. Where torchvision is absent or
loads as it is, nothing happens.
"""

from __future__ import annotations

from contextlib import suppress

import torch

# As torchvision's compiled half declares them.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

with suppress(ImportError):
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        DECLARED = torch.library.Library("torchvision", "DEF")  # a declaration lives as long as this object
        for schema in SCHEMAS:
            DECLARED.define(schema)
        import torchvision  # noqa: F401
