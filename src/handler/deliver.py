"""Lambda's entry point of ``deliver``, built from the environment in the init phase."""

from __future__ import annotations

import os

from .delivery.function import Deliver
from .telemetry import metrics

handler = metrics.log_metrics(Deliver.from_environment(os.environ))
