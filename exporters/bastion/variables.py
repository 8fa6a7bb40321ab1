"""The variables of the earlier migration dashboard: METALLB_PEERS, NODEPORT_PEERS and ROUTE_PEERS to targets. Pure.

    METALLB_PEERS='{"peer-1-lb": "192.0.2.1"}'                                  path loadbalancer, the peers' own ports
    NODEPORT_PEERS='{"peer-1-np": {"host": "node-1", "ws_port": 30080, "tcp_port": 30081, "http_port": 30082}}'
    ROUTE_PEERS=http://peer-1.apps.example.com,peer-2.apps.example.com/below    path route, http; https if not said

Everything wrong with a value is told at once, each with its place in it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT, Host, Target, TlsFiles

_SCHEMES = {"http": 80, "https": 443}
_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "required, but missing",
    "model_type": "want an object with host, ws_port, tcp_port and http_port",
}


def load_balancers(text: str) -> list[Target]:
    """Targets of METALLB_PEERS. Raises BadInput."""
    return _object(_load_balancer, text)


def node_ports(text: str) -> list[Target]:
    """Targets of NODEPORT_PEERS. Raises BadInput."""
    return _object(_node_port, text)


def routes(text: str) -> list[Target]:
    """Targets of ROUTE_PEERS, named by their position: peer-1-route, peer-2-route. Raises BadInput."""
    urls = filter(None, map(str.strip, text.split(",")))
    return _all(_route, ((f"peer-{position}-route", url) for position, url in enumerate(urls, 1)))


def _load_balancer(name: str, value: Any) -> Target:
    return Target(name=name, path="loadbalancer", host=TypeAdapter(Host).validate_python(value, strict=True))


def _number(value: object) -> object:
    # The dashboard put ports into URLs as they came, so that "30080" was as good as 30080.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6 else value


Port = Annotated[int, BeforeValidator(_number), Field(ge=1, le=65535)]


class NodePort(BaseModel):
    model_config = STRICT
    host: Host
    ws_port: Port
    tcp_port: Port
    http_port: Port


def _node_port(name: str, value: Any) -> Target:
    said = NodePort.model_validate(value, strict=True)
    ports = {"http": said.http_port, "tcp": said.tcp_port, "ws": said.ws_port}
    return Target.model_validate({"name": name, "path": "nodeport", "host": said.host, "ports": ports})


def _route(name: str, url: str) -> Target:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"want http or https, not {parts.scheme!r}")
    if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("want [http[s]://]HOST[:PORT][/PATH], without user and query")
    if parts.port == 0:
        raise ValueError("want a port from 1 to 65535, not 0")
    return Target(
        name=name,
        path="route",
        host=parts.hostname,
        ports={"http": parts.port or _SCHEMES[parts.scheme]},
        url_path=f"{parts.path.rstrip('/')}/ping",
        tls=TlsFiles() if parts.scheme == "https" else None,
    )


def _all(
    target: Callable[[str, Any], Target], members: Iterable[tuple[str, Any]], problems: Sequence[Problem] = ()
) -> list[Target]:
    """A target of every member. Raises BadInput with what is wrong with any of them, and the problems before."""
    found: list[Target] = []
    told = list(problems)
    for name, value in members:
        try:
            found.append(target(name, value))
        except ValueError as error:
            told.extend(_problems(name, error))
    if told:
        raise BadInput(told)
    return found


def _problems(name: str, error: ValueError) -> Iterator[Problem]:
    if not isinstance(error, ValidationError):
        yield Problem(_place(name), str(error))
        return
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        message = _MESSAGES.get(each["type"], each["msg"].removeprefix("Value error, "))
        yield Problem(_place(name, *each["loc"]), message)


def _place(*path: object) -> str:
    text = ".".join(map(str, path))
    return text if text.isprintable() else ascii(text)


class _Object(list[tuple[str, Any]]):
    """A JSON object's members as written, those that stand twice included."""


def _object(target: Callable[[str, Any], Target], text: str) -> list[Target]:
    """A target of every member of the JSON object. Raises BadInput."""
    try:
        found = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise BadInput([Problem("", f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})")]) from None
    except (ValueError, RecursionError):
        raise BadInput([Problem("", "not JSON that can be read: nested too deep, or a number too long")]) from None
    if not isinstance(found, _Object):
        raise BadInput([Problem("", "want a JSON object, names to addresses")])
    problems: list[Problem] = []
    return _all(target, _plain(found, (), problems).items(), problems)


def _plain(value: Any, path: tuple[str, ...], problems: list[Problem]) -> Any:
    """The value as dictionaries and lists; keys that stand twice are problems."""
    if isinstance(value, _Object):
        counted = Counter(key for key, _ in value)
        problems += [Problem(_place(*path, key), "duplicate key") for key, times in counted.items() if times > 1]
        return {key: _plain(each, (*path, key), problems) for key, each in value}
    return [_plain(each, path, problems) for each in value] if isinstance(value, list) else value
