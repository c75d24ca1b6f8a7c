"""`python -m lsi_ray.engine.vllm.health`: what torch and vLLM are here, as one line of JSON, for `lsi doctor`."""

from __future__ import annotations

import json
from typing import Any


def look() -> dict[str, Any]:
    import torch
    import vllm

    from lsi_ray.engine.vllm.imports import LOCATIONS, find
    from lsi_ray.errors import ConfigError

    missing = []
    for name in LOCATIONS:
        try:
            find(name)
        except ConfigError:
            missing.append(name)
    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "gpus": torch.cuda.device_count() if torch.version.cuda else 0,
        "missing": missing,
    }


if __name__ == "__main__":
    found = look()
    print(json.dumps(found))
