"""Lets a CUDA build of torchvision be imported beside a CPU build of torch.

There torchvision's compiled library cannot load, and its Python part then fails with "operator torchvision::nms does
not exist", although nothing here calls that operator. This module declares the two missing schemas in that one case.
It is loaded by a `.pth` line at interpreter start, in spawned processes too, and does nothing until torchvision is
imported: it costs one string comparison per import. Where torchvision's library loads, it changes nothing.
"""

import sys

# The module of torchvision that needs the schemas. By then torchvision.extension has tried to load the library.
_NEEDS_SCHEMAS = "torchvision._meta_registrations"


class _Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == _NEEDS_SCHEMAS:
            sys.meta_path.remove(_Finder)
            _declare_missing()
        # None: the ordinary finders load the module


def _declare_missing():
    import torch
    import torchvision.extension  # loads the compiled library, when it can be loaded  # noqa: F401

    for op in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, op):
            torch.library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Finder)
