# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an instance counts and measures, in the format of Prometheus."""

from __future__ import annotations

import re
import sys

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

PATH = "/metrics"
# Other paths of IOPaint's count as "other": anybody may ask for any path, and each would become a series of its own.
ROUTES = re.compile(
    r"/api/v1/(adjust_mask|gen-info|inpaint|inputimage|media_file|media_thumbnail_file|medias|model|run_plugin_gen_image"
    r"|run_plugin_gen_mask|samplers|save_image|server-config|switch_plugin_model)|/socket\.io"
)
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


def route_of(path):
    """Return the route of a path: one of IOPaint's API, "page" for what a browser loads, or "other"."""
    found = ROUTES.match(path)
    if found and found[0] == path.rstrip("/"):
        return found[0]
    return "other" if path.startswith(("/api/", "/socket.io")) else "page"


class Metrics:
    """The measures of one instance. GPU memory is torch's own figure, of this process."""

    def __init__(self):
        """Begin at zero. The start of the process is among them, so a restart is seen as a change of it."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self.make(Counter, "requests", "Requests, by route and HTTP status.", ["route", "status"])
        self.seconds = self.make(Histogram, "request_seconds", "Seconds until an answer was sent, by route.", ["route"], SECONDS)
        self.queue = self.make(Gauge, "queue_length", "Requests that wait for the one that computes.")
        self.waited = self.make(Histogram, "queue_seconds", "Seconds that a request waited for its turn.", [], SECONDS)
        self.computed = self.make(
            Histogram, "computation_seconds", "Seconds that IOPaint computed, by route and model.", ["route", "model"], SECONDS
        )
        self.model = self.make(Gauge, "model_loaded", "1 for the model that is loaded.", ["model"])
        self.memory = self.make(Gauge, "gpu_memory_bytes", "Memory that torch holds on each GPU, by kind.", ["gpu", "kind"])
        self.name = ""

    def make(self, kind, name, text, labels=(), buckets=None):
        """Return a new measure of this instance."""
        return kind(f"iopaint_{name}", text, labels, registry=self.registry, **({"buckets": buckets} if buckets else {}))

    def count(self, path, status, seconds):
        """Count an answered request."""
        self.requests.labels(route_of(path), str(status)).inc()
        self.seconds.labels(route_of(path)).observe(seconds)

    def loaded(self, name):
        """Note which model is loaded."""
        if name and name != self.name:
            self.model.clear()
            self.model.labels(name).set(1)
            self.name = name

    def page(self):
        """Return body and content type of the page that Prometheus reads."""
        torch = sys.modules.get("torch")
        if torch and torch.cuda.is_available() and torch.cuda.is_initialized():
            for gpu in range(torch.cuda.device_count()):
                self.memory.labels(str(gpu), "allocated").set(torch.cuda.memory_allocated(gpu))
                self.memory.labels(str(gpu), "reserved").set(torch.cuda.memory_reserved(gpu))
                self.memory.labels(str(gpu), "peak").set(torch.cuda.max_memory_allocated(gpu))
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
