"""What of a cluster can be probed: its objects in, entries of `targets:` out, and what was left out and why. Pure.

1. A target is called as it calls itself where that is known: a peer of ours by its node, a fixed one (`ovnwatch/peer`)
   by its name, `any-peer` where whichever of them answers; others are SERVICE.NAMESPACE, Routes and Ingresses that lead
   to such by their own name. Where it matters through which node one goes in, `@NODE` follows.
2. Only what is known to answer is probed: TCP ports whose appProtocol or name stands in SPOKEN.
3. Whether a pod is ready counts only where it decides who answers: one that is not is what we are here for.
4. What cannot be probed, or would be probed twice, is left out and told.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from exporters.discovery.resources import (
    INGRESSES,
    NODES,
    OWNER,
    ROUTES,
    SERVICES,
    SLICES,
    Balanced,
    Endpoint,
    Ingress,
    Node,
    Port,
    Route,
    Service,
    Slice,
    as_shape,
)
from exporters.objects import Fields
from exporters.targets import Target, literal_family

Entry = dict[str, Any]  # of `targets:`
Offer = tuple[str, Entry | str]  # what of the cluster, and the entry that probes it or why there is none
Key = tuple[str, str, int]  # name, path and family of an entry

PEER = "ovnwatch/peer"  # the label that three fixed peers have
PEERS = {"app.kubernetes.io/name": "ovnwatch", "app.kubernetes.io/component": "peer"}
ANY_PEER = "any-peer"
ZONE = "topology.kubernetes.io/zone"
# The protocol by which a port is probed, and whether over TLS.
SPOKEN: Mapping[str, tuple[str, bool]] = {
    "http": ("http", False),
    "https": ("http", True),
    "tcp": ("tcp", False),
    "ws": ("ws", False),
    "kubernetes.io/ws": ("ws", False),
}
UNSPOKEN = "no TCP port is called http, https, tcp or ws"


class Found(NamedTuple):
    entries: list[Entry]
    left_out: list[str]


class World(NamedTuple):
    """The objects, in the order of their names; slices by namespace and name of their Service."""

    services: Mapping[tuple[str, str], Service]
    slices: Mapping[tuple[str, str], list[Slice]]
    nodes: Sequence[Node]
    routes: Sequence[Route]
    ingresses: Sequence[Ingress]
    addresses: str  # the type of a node's addresses by which NodePorts are reached


def find(objects: Mapping[str, Iterable[Fields]], paths: Iterable[str], addresses: str = "InternalIP") -> Found:
    """The entries that probe what there is by these paths; `objects` are by resource, as watches keep them."""
    world = _world(objects, addresses)
    found: dict[Key, tuple[str, Entry]] = {}
    left_out = []
    for path in paths:
        for who, offer in FINDERS[path](world):
            wrong = offer if isinstance(offer, str) else _wrong(offer)
            if isinstance(offer, dict) and not wrong:
                first, _ = found.setdefault(key_of(offer), (who, offer))
                wrong = "" if found[key_of(offer)][1] is offer else f"{offer['name']} is probed already: {first}"
            if wrong:
                left_out.append(f"{who}, {path}: {wrong}")
    return Found([entry for _, entry in found.values()], left_out)


def key_of(entry: Entry) -> Key:
    return entry["name"], entry["path"], entry.get("family") or literal_family(entry["host"]) or 4


def pods(slices: Iterable[Slice], called: Callable[[Endpoint], str]) -> Iterator[Entry | str]:
    """An entry for each endpoint, ready or not; those that are about to go come after those that took their place."""
    for each in slices:
        spoken = _spoken(each.ports or (), lambda port: port.port)
        for endpoint in sorted(each.endpoints or (), key=_ending):
            if spoken is None:
                yield UNSPOKEN
            elif not (name := called(endpoint)):
                yield "an endpoint without a node"
            elif endpoint.addresses:
                at = {"node": endpoint.nodeName or "", "zone": endpoint.zone or ""}
                yield _entry(name, "pod", endpoint.addresses[0], spoken) | {
                    name: is_ for name, is_ in at.items() if is_
                }


# --- a function for each path


def _pods(world: World) -> Iterator[Offer]:
    for who, service in world.services.items():
        if service.spec.clusterIPs != ["None"]:
            continue
        base = called(service)

        def named(endpoint: Endpoint, base: str = base) -> str:
            if not endpoint.nodeName:
                return "" if base == ANY_PEER else base
            return _at_node(base, endpoint.nodeName)

        for offer in pods(world.slices.get(who, ()), named):
            yield _service(service), offer


def _services(world: World) -> Iterator[Offer]:
    for service in world.services.values():
        ips = service.spec.clusterIPs or []
        if ips == ["None"] or service.spec.type == "ExternalName":
            continue
        about = service.metadata
        yield (
            _service(service),
            _of_ports(service, "service", f"{about.name}.{about.namespace}.svc", lambda port: port.port),
        )


def _node_ports(world: World) -> Iterator[Offer]:
    for who, service in world.services.items():
        if service.spec.type not in ("NodePort", "LoadBalancer"):
            continue
        local = service.spec.externalTrafficPolicy == "Local"
        answering = _answering(world.slices.get(who, ()))
        families = {literal_family(ip) or 4 for ip in service.spec.clusterIPs or ["0.0.0.0"]}  # noqa: S104 - for IPv4
        for node in world.nodes:
            name = node.metadata.name
            if local and name not in answering:
                continue
            base = called(service)
            own = {"node": name, "zone": (node.metadata.labels or {}).get(ZONE, "")} if local else {}
            hosts = [each.address for each in node.status.addresses or () if each.type == world.addresses]
            chosen = {literal_family(host) or 4: host for host in reversed(hosts)}
            for family in sorted(families & chosen.keys()):
                offer = _of_ports(service, "nodeport", chosen[family], lambda port: port.nodePort)
                if isinstance(offer, dict):
                    offer["name"] = _at_node(base, name) if local else f"{base}@{name}"
                    offer |= {key: value for key, value in own.items() if value}
                yield f"{_service(service)} by {name}", offer
            if not families & chosen.keys():
                yield f"{_service(service)} by {name}", f"the node has no {world.addresses} of its family"


def _load_balancers(world: World) -> Iterator[Offer]:
    for service in world.services.values():
        if service.spec.type != "LoadBalancer":
            continue
        hosts = _hosts(service.status)
        for host in hosts:
            yield _service(service), _of_ports(service, "loadbalancer", host, lambda port: port.port)
        if not hosts:
            yield _service(service), "no address yet"


def _routes(world: World) -> Iterator[Offer]:
    for route in world.routes:
        about, spec = route.metadata, route.spec
        who = f"Route {about.namespace}/{about.name}"
        admitted = any(
            (each.type, each.status) == ("Admitted", "True")
            for router in route.status.ingress or ()
            for each in router.conditions or ()
        )
        if not admitted:
            yield who, "no router has admitted it"
            continue
        service = None if spec.alternateBackends else world.services.get((about.namespace, spec.to.name))
        name = _leads_to(service) or f"{about.name}.{about.namespace}"
        yield who, _web(name, "route", spec.host, spec.path, secured=spec.tls is not None)


def _ingresses(world: World) -> Iterator[Offer]:
    for ingress in world.ingresses:
        about = ingress.metadata
        who = f"Ingress {about.namespace}/{about.name}"
        if not _hosts(ingress.status):
            yield who, "no address yet"
            continue
        secured = {host for each in ingress.spec.tls or () for host in each.hosts or ()}
        for rule in ingress.spec.rules or ():
            for path in rule.http.paths or () if rule.http else ():
                backend = path.backend.service.name if path.backend.service else ""
                name = _leads_to(world.services.get((about.namespace, backend))) or f"{about.name}.{about.namespace}"
                if not rule.host:
                    yield who, "a rule without a host"
                elif path.pathType == "Exact":
                    yield who, f"{path.path} leads to no path below it"
                else:
                    yield who, _web(name, "ingress", rule.host, path.path, secured=rule.host in secured)


FINDERS: Mapping[str, Callable[[World], Iterator[Offer]]] = {
    "pod": _pods,
    "service": _services,
    "nodeport": _node_ports,
    "loadbalancer": _load_balancers,
    "route": _routes,
    "ingress": _ingresses,
}


# --- their parts


def called(service: Service) -> str:
    """The target that answers for a Service."""
    return _leads_to(service) or f"{service.metadata.name}.{service.metadata.namespace}"


def _leads_to(service: Service | None) -> str:
    """The peer that a Service leads to; "" for none of ours."""
    if service is None:
        return ""
    fixed = (service.spec.selector or {}).get(PEER, "")
    return fixed or (ANY_PEER if PEERS.items() <= (service.metadata.labels or {}).items() else "")


def _at_node(base: str, node: str) -> str:
    """The one of several that is on a node: a peer has the node's name."""
    return node if base == ANY_PEER else f"{base}@{node}"


def _service(service: Service) -> str:
    return f"Service {service.metadata.namespace}/{service.metadata.name}"


def _of_ports(service: Service, path: str, host: str, number: Callable[[Port], int | None]) -> Entry | str:
    spoken = _spoken(service.spec.ports or (), number)
    return UNSPOKEN if spoken is None else _entry(called(service), path, host, spoken)


def _entry(name: str, path: str, host: str, spoken: tuple[dict[str, int], bool]) -> Entry:
    ports, secured = spoken
    return {"name": name, "path": path, "host": host, "ports": ports, **({"tls": True} if secured else {})}


def _web(name: str, path: str, host: str, below: str, *, secured: bool) -> Entry:
    entry = _entry(name, path, host, ({"http": 443 if secured else 80}, secured))
    return entry | {"url_path": f"{below.rstrip('/')}/ping"}


def _spoken(ports: Iterable[Port], number: Callable[[Port], int | None]) -> tuple[dict[str, int], bool] | None:
    """Port numbers by protocol, and whether over TLS: all of them or none, and those without if there are both."""
    by_tls: dict[bool, dict[str, int]] = {False: {}, True: {}}
    for port in ports:
        said = SPOKEN.get(port.appProtocol or "") or SPOKEN.get(port.name or "")
        at = number(port)
        if said is not None and at is not None and port.protocol in ("TCP", None):
            by_tls[said[1]].setdefault(said[0], at)
    return next(((by_tls[secured], secured) for secured in (False, True) if by_tls[secured]), None)


def _hosts(status: Balanced) -> list[str]:
    found = status.loadBalancer.ingress or () if status.loadBalancer else ()
    return [each.ip or each.hostname for each in found if each.ip or each.hostname]


def _answering(slices: Iterable[Slice]) -> set[str]:
    """The nodes that pass traffic on to pods of their own: to such as are ready, or, ending, still serve."""
    return {
        endpoint.nodeName
        for each in slices
        for endpoint in each.endpoints or ()
        if endpoint.nodeName and _passed_on(endpoint)
    }


def _ending(endpoint: Endpoint) -> bool:
    return bool(endpoint.conditions and endpoint.conditions.terminating)


def _passed_on(endpoint: Endpoint) -> bool:
    if endpoint.conditions is None or endpoint.conditions.ready is not False:
        return True
    return bool(endpoint.conditions.serving and endpoint.conditions.terminating)


def _wrong(entry: Entry) -> str:
    """Why no exporter would take an entry; "" for a good one."""
    try:
        Target.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return ""


def _world(objects: Mapping[str, Iterable[Fields]], addresses: str) -> World:
    def known(plural: str, shape: type[Any]) -> list[Any]:
        found = [as_shape(shape, each) for each in objects.get(plural, ())]
        return sorted(found, key=lambda each: (each.metadata.namespace, each.metadata.name))

    slices: dict[tuple[str, str], list[Slice]] = {}
    for each in known(SLICES, Slice):
        owner = (each.metadata.labels or {}).get(OWNER, "")
        slices.setdefault((each.metadata.namespace, owner), []).append(each)
    services = {(each.metadata.namespace, each.metadata.name): each for each in known(SERVICES, Service)}
    return World(services, slices, known(NODES, Node), known(ROUTES, Route), known(INGRESSES, Ingress), addresses)
