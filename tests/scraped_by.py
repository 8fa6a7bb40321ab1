"""A real Prometheus that scrapes what a test gives it, and is asked what it found."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from running import wait_for

from lab.children import hold_port

Query = Callable[[str], list[dict[str, Any]]]


@contextmanager
def scraping(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Query]:
    """Scrape the jobs, name to scrape configuration, every second; ask with a PromQL expression."""
    config = folder / "prometheus.yaml"
    named = [{"job_name": name, **job} for name, job in jobs.items()]
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": named}))
    held = hold_port()
    port = held.getsockname()[1]
    held.close()
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def query(expression: str) -> list[dict[str, Any]]:
        asked = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(ready, 60)
            yield query
        finally:
            process.kill()
