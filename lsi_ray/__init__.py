"""Large Scale Inference: batch archives of multimodal requests through Ray Data and vLLM."""

__version__ = "0.1.0"
