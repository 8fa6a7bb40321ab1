"""Takes a new configuration into use while all runs on; one that is not good in every part changes nothing."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporters import catalog
from exporters.process import Tasks
from exporters.settings import BadInput, Program, S, needs_restart

log = logging.getLogger(__name__)


class Reloads(Collector, Generic[S]):
    """Reads the configuration again when called, and has it used; `settings` is what is in use."""

    def __init__(
        self,
        program: Program[S],
        argv: Sequence[str],
        environ: Mapping[str, str],
        settings: S,
        use: Callable[[S], None],
    ) -> None:
        self.settings = settings
        self._load = lambda: program.load(argv, environ, settings.descriptors)
        self._use = use
        self._one_at_a_time = asyncio.Lock()
        self._catalog = catalog.exported()
        self._successful = True
        self._success = time.time()

    async def __call__(self) -> Sequence[str]:
        """Return the problems because of which nothing was changed, none if all was."""
        async with self._one_at_a_time:
            try:
                # Away from the loop: a long file takes longer to check than a probe may be late.
                settings = await asyncio.to_thread(self._load)
                problems = needs_restart(self.settings, settings)
            except BadInput as bad:
                problems = bad.problems
            self._successful = not problems
            if problems:
                for problem in problems:
                    log.error("configuration not reloaded: %s: %s", *problem)
                return [f"{place}: {message}" for place, message in problems]
            self._use(settings)
            self.settings = settings
            self._success = time.time()
            log.info("configuration reloaded: %d streams", len(settings.streams))
            return []

    def at_hangup(self, tasks: Tasks) -> None:
        """Reload at every SIGHUP, too."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: tasks.spawn(self()))

    def collect(self) -> Iterable[Metric]:
        """Return whether the last reload succeeded, and when the last good one was."""
        values = {
            "ovnwatch_config_last_reload_successful": float(self._successful),
            "ovnwatch_config_last_reload_success_timestamp_seconds": self._success,
        }
        for name, value in values.items():
            metric = self._catalog.metric(name)
            family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
            family.add_metric([self.settings.source], value)
            yield family
