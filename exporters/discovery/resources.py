"""What is read of a cluster to find targets in it, and what is kept of each object. Pure.

Services, EndpointSlices, Routes and Ingresses of one namespace, and the cluster's nodes; no pods, no secrets.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, field

from exporters.objects import Fields, Resource

Text = Annotated[str, Meta(max_length=1024)]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
MOST_ITEMS = 1000  # ports, addresses, endpoints: of one object
OWNER = "kubernetes.io/service-name"  # the label by which a slice tells its Service

T = TypeVar("T")
Shape = TypeVar("Shape")
Some = Annotated[list[T], Meta(max_length=MOST_ITEMS)] | None
Names = Annotated[dict[Text, Text], Meta(max_length=MOST_ITEMS)] | None


class Metadata(msgspec.Struct):
    name: Text
    namespace: Text = ""
    uid: Text = ""
    resourceVersion: Text = ""  # noqa: N815 - the API's own words, here and below
    labels: Names = None


class Address(msgspec.Struct):
    """Where a LoadBalancer or an Ingress is reached."""

    ip: Text = ""
    hostname: Text = ""


class Addresses(msgspec.Struct):
    ingress: Some[Address] = None


class Balanced(msgspec.Struct):
    loadBalancer: Addresses | None = None  # noqa: N815


class Port(msgspec.Struct):
    """Of a Service, or of a slice, where it may have no number."""

    port: PortNumber | None = None
    name: Text | None = ""
    protocol: Text | None = "TCP"
    nodePort: PortNumber | None = None  # noqa: N815
    appProtocol: Text | None = None  # noqa: N815


class ServiceSpec(msgspec.Struct):
    type: Text = "ClusterIP"
    clusterIPs: Some[Text] = None  # noqa: N815
    externalTrafficPolicy: Text = "Cluster"  # noqa: N815
    ports: Some[Port] = None
    selector: Names = None


class Service(msgspec.Struct):
    metadata: Metadata
    spec: ServiceSpec = field(default_factory=ServiceSpec)
    status: Balanced = field(default_factory=Balanced)


class Conditions(msgspec.Struct):
    ready: bool | None = None  # unknown is ready
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct):
    addresses: Some[Text] = None
    conditions: Conditions | None = None
    nodeName: Text | None = None  # noqa: N815
    zone: Text | None = None


class Slice(msgspec.Struct):
    metadata: Metadata
    endpoints: Some[Endpoint] = None
    ports: Some[Port] = None


class NodeAddress(msgspec.Struct):
    type: Text
    address: Text


class NodeStatus(msgspec.Struct):
    addresses: Some[NodeAddress] = None


class Node(msgspec.Struct):
    metadata: Metadata
    status: NodeStatus = field(default_factory=NodeStatus)


class Condition(msgspec.Struct):
    type: Text
    status: Text


class Router(msgspec.Struct):
    conditions: Some[Condition] = None


class Backend(msgspec.Struct):
    name: Text = ""


class RouteTls(msgspec.Struct):
    """That there is some; its key may stand there, too, and is not read."""


class RouteSpec(msgspec.Struct):
    host: Text = ""
    path: Text = ""
    to: Backend = field(default_factory=Backend)
    alternateBackends: Some[Backend] = None  # noqa: N815
    tls: RouteTls | None = None


class RouteStatus(msgspec.Struct):
    ingress: Some[Router] = None


class Route(msgspec.Struct):
    metadata: Metadata
    spec: RouteSpec = field(default_factory=RouteSpec)
    status: RouteStatus = field(default_factory=RouteStatus)


class IngressService(msgspec.Struct):
    service: Backend | None = None


class IngressPath(msgspec.Struct):
    path: Text = "/"
    pathType: Text = "Prefix"  # noqa: N815
    backend: IngressService = field(default_factory=IngressService)


class IngressHttp(msgspec.Struct):
    paths: Some[IngressPath] = None


class IngressRule(msgspec.Struct):
    host: Text = ""
    http: IngressHttp | None = None


class IngressTls(msgspec.Struct):
    hosts: Some[Text] = None


class IngressSpec(msgspec.Struct):
    rules: Some[IngressRule] = None
    tls: Some[IngressTls] = None


class Ingress(msgspec.Struct):
    metadata: Metadata
    spec: IngressSpec = field(default_factory=IngressSpec)
    status: Balanced = field(default_factory=Balanced)


def _reader(shape: type[Shape]) -> Callable[[bytes], Fields]:
    """What makes of an object's JSON the parts that are kept. Raises msgspec.DecodeError."""
    decode = msgspec.json.Decoder(shape).decode

    def read(data: bytes) -> Fields:
        found: Fields = msgspec.to_builtins(decode(data))
        return found

    return read


def as_shape(shape: type[Shape], kept: Fields) -> Shape:
    """An object as it was read, from what a watch keeps."""
    return msgspec.convert(kept, shape)


NODES, SERVICES, SLICES, ROUTES, INGRESSES = "nodes", "services", "endpointslices", "routes", "ingresses"
SHAPES: Mapping[str, type[msgspec.Struct]] = {
    NODES: Node,
    SERVICES: Service,
    SLICES: Slice,
    ROUTES: Route,
    INGRESSES: Ingress,
}
_KINDS = {
    NODES: ("v1", "Node"),
    SERVICES: ("v1", "Service"),
    SLICES: ("discovery.k8s.io/v1", "EndpointSlice"),
    ROUTES: ("route.openshift.io/v1", "Route"),
    INGRESSES: ("networking.k8s.io/v1", "Ingress"),
}
# What is read to find the targets of each path.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "pod": (SERVICES, SLICES),
    "service": (SERVICES,),
    "nodeport": (SERVICES, SLICES, NODES),
    "loadbalancer": (SERVICES,),
    "route": (SERVICES, ROUTES),
    "ingress": (SERVICES, INGRESSES),
}


def resource(plural: str, namespace: str, labels: str = "") -> Resource:
    """What to watch: objects of a namespace with these labels; nodes are the cluster's, all of them."""
    version, kind = _KINDS[plural]
    within = "" if plural == NODES else namespace
    chosen = "" if plural == NODES else labels
    return Resource(plural, version, kind, plural, _reader(SHAPES[plural]), namespace=within, labels=chosen)


def slices_of(namespace: str, service: str) -> Resource:
    """The slices of one Service."""
    return resource(SLICES, namespace, f"{OWNER}={service}")
