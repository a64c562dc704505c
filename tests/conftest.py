"""Profiles of hypothesis, and one thread a worker: two workers share two cores."""

import torch
from hypothesis import HealthCheck, settings

# Laws draw few numbers and spend their time in tensors: the health checks on speed say nothing about them.
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors]
settings.register_profile("default", max_examples=15, deadline=None, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("slow", parent=settings.get_profile("default"), max_examples=200)
settings.load_profile("default")

torch.set_num_threads(1)
