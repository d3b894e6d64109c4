"""What is asked: the direction of a pass."""

from __future__ import annotations

from typing import Literal

Direction = Literal["forward", "backward"]
"""A pass over the steps: from the first to the last, or of the gradients, from the last to the first."""
