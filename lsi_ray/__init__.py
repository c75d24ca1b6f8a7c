"""Large Scale Inference: batch archives of multimodal requests through Ray Data and vLLM.

    from lsi_ray import Client

The client is loaded when it is first named, so that `import lsi_ray` stays fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsi_ray.client import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from lsi_ray.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
