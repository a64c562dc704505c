"""The policy of precision: float32 at least, autocast off inside, results in the caller's dtype."""

from __future__ import annotations

import torch

HALF_DTYPES = (torch.bfloat16, torch.float16)
