"""What a server has done, in the text format of Prometheus."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Monitor:
    """Counters of one server.

    Attributes:
        requests: by path (those that the API has; the page's are ``page``) and status.
        seconds: from the first byte of a request to the last of its answer, of predictions.
        in_progress: predictions that were accepted and are not finished.
        batch_images: images that went through the model together.
        model_seconds: seconds that the model has computed.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("tasktokens_requests", "Requests.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram(
            "tasktokens_predict_seconds", "Seconds of POST /predict.", buckets=SECONDS, registry=self.registry
        )
        self.in_progress = Gauge(
            "tasktokens_in_progress", "Predictions that are waiting or computed.", registry=self.registry
        )
        self.batch_images = Histogram(
            "tasktokens_batch_images", "Images per pass of the model.", buckets=(1, 2, 4, 8, 16), registry=self.registry
        )
        self.model_seconds = Counter("tasktokens_model_seconds", "Seconds of the model.", registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._seconds_per_image = 0.0

    def observe_batch(self, images: int, seconds: float) -> None:
        """Count a pass of the model."""
        self.batch_images.observe(images)
        self.model_seconds.inc(seconds)
        self._seconds_per_image += 0.1 * (seconds / images - self._seconds_per_image)

    def seconds_for(self, images: int) -> int:
        """About how long the model takes for as many images, going by the last ones: 1 to 60."""
        return min(60, max(1, math.ceil(images * self._seconds_per_image)))

    def text(self) -> bytes:
        """All of it, format 0.0.4."""
        return generate_latest(self.registry)
