"""Checkpoints are read of the same small models that captures are made of."""

from tests.capture.conftest import folder, model, tokens_ST

__all__ = ["folder", "model", "tokens_ST"]
