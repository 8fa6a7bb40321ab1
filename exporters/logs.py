"""Our log: one line per event on standard error, logfmt or JSON, with tracebacks inside the line."""

import json
import logging
import sys
from datetime import UTC, datetime

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def set_up(level: str, form: str) -> None:
    """Send every log record of `level` ("debug", "info", "warn", "error") and above to stderr as "logfmt" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATS[form]())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)


class LogFmt(logging.Formatter):
    """`time=2026-01-02T03:04:05.678Z level=info logger=exporters.web msg="port 8083 is served"`."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in _fields(self, record).items())


class Json(logging.Formatter):
    """The same fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(self, record))


FORMATS: dict[str, type[logging.Formatter]] = {"logfmt": LogFmt, "json": Json}


def _fields(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = {"WARNING": "warn", "CRITICAL": "error"}.get(record.levelname, record.levelname.lower())
    fields = {"time": stamp, "level": level, "logger": record.name, "msg": record.getMessage()}
    if record.exc_info:
        fields["exception"] = formatter.formatException(record.exc_info)
    return fields


def _quoted(value: str) -> str:
    # JSON's quoting keeps a line one line whatever is in it.
    plain = value.isascii() and value.isprintable() and not set(value) & set(' "=\\')
    return value if value and plain else json.dumps(value, ensure_ascii=False)
