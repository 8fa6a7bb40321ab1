"""`--web.config.file` in the format of the Prometheus exporter toolkit: TLS, client certificates, passwords, headers.

1. What Python's TLS or this server cannot do is a problem with its place, never ignored: who wrote it relies on it.
2. Names of files are relative to the file. All are opened here: a configuration that loads is one that works.
3. Nothing of a key, a password or its hash is told in a problem.
"""

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel

from exporters import strictyaml
from exporters.strictyaml import BadInput, Document, Problem
from exporters.targets import STRICT, FileName

MOST_TEXT = 1 << 24  # characters of a file; ten thousand targets have a million
MOST_COST = 14  # of bcrypt: a second a password on a slow core
SUITES = {  # of TLS 1.2 those that Go and OpenSSL still hold for good, as each calls them
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
    )
}
VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENTS = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
HEADERS = {  # that may be set, and what they may say
    "Content-Security-Policy": r".+",
    "Strict-Transport-Security": r"max-age=[0-9]+(; ?includeSubDomains)?(; ?preload)?",
    "X-Content-Type-Options": r"nosniff",
    "X-Frame-Options": r"(?i:deny|sameorigin)",
    "X-XSS-Protection": r".+",
}


@dataclass(frozen=True, slots=True)
class WebConfig:
    """Who may ask, and how; `files` are those it was made of. `sans` are names one of which a client must have."""

    tls: ssl.SSLContext | None = None
    sans: frozenset[str] = frozenset()
    users: Mapping[str, bytes] = field(default_factory=dict)  # to bcrypt hashes
    headers: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def _suite(name: str) -> str:
    if name not in SUITES:
        raise ValueError(f"not supported: want some of {', '.join(SUITES)}")
    return name


def _hash(text: str) -> str:
    found = re.fullmatch(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}", text)
    if not found or not 4 <= int(found[1]) <= MOST_COST:
        raise ValueError(f"want a bcrypt hash of a cost from 4 to {MOST_COST}")
    return text


def _headers(given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if name not in HEADERS:
            raise ValueError(f"header {name!r} cannot be set: want some of {', '.join(HEADERS)}")
        if not re.fullmatch(HEADERS[name], value) or not value.isprintable():
            raise ValueError(f"{name} cannot be {value!r}")
    return given


class TlsServer(BaseModel):
    model_config = STRICT
    cert_file: FileName
    key_file: FileName
    client_ca_file: FileName | None = None
    client_auth_type: Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"] = "NoClientCert"
    client_allowed_sans: list[str] = []
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    max_version: Literal["TLS12", "TLS13"] = "TLS13"
    cipher_suites: list[Annotated[str, AfterValidator(_suite)]] = []
    prefer_server_cipher_suites: bool = True


class HttpServer(BaseModel):
    model_config = STRICT
    http2: Literal[False] = False  # HTTP/1.1 is what we speak
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}


class WebFile(BaseModel):
    model_config = STRICT
    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: dict[str, Annotated[str, AfterValidator(_hash)]] = {}


def load(path: Path) -> WebConfig:
    """What the file says, ready for use. Raises BadInput with all problems."""
    document = strictyaml.load(read_text(path, str(path)), str(path))
    file = document.check(WebFile, document.data)
    if file is None or document.problems:
        raise BadInput(document.in_order())
    tls = file.tls_server_config
    context = _context(tls, path.parent, document) if tls else None
    if document.problems:
        raise BadInput(document.in_order())
    named = [path.parent / each for each in (tls.cert_file, tls.key_file, tls.client_ca_file) if each] if tls else []
    return WebConfig(
        tls=context,
        sans=frozenset(map(plain_name, tls.client_allowed_sans if tls else ())),
        users={user: hashed.encode() for user, hashed in file.basic_auth_users.items()},
        headers=file.http_server_config.headers,
        files=(path, *named),
    )


def plain_name(name: str) -> str:
    """A name in a certificate; an address has many spellings."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name


def read_text(path: Path, place: str) -> str:
    """A file of settings. Raises BadInput."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(MOST_TEXT + 1)
        if len(text) <= MOST_TEXT:
            return text
        message = f"{path} is longer than {MOST_TEXT} characters"
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8: {error.reason} at byte {error.start}"
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
    raise BadInput([Problem(place, message)])


def read_token(path: Path, place: str) -> str:
    """The bearer token in a file. Raises BadInput."""
    return checked_token(read_text(path, place).strip(), place)


def checked_token(token: str, place: str) -> str:
    if not re.fullmatch(r"[!-~]+", token):
        raise BadInput([Problem(place, "a token is not empty, and printable ASCII without spaces")])
    return token


def _context(tls: TlsServer, folder: Path, document: Document) -> ssl.SSLContext | None:
    for key, wrong in _contradictions(tls):
        _add(document, key, wrong)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    unreadable = [key for key in ("cert_file", "key_file", "client_ca_file") if not _opens(tls, key, folder, document)]
    if unreadable or document.problems:
        return None
    try:
        # Asked for the password of a key it would stop and read the terminal.
        context.load_cert_chain(folder / tls.cert_file, folder / tls.key_file, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        _add(document, "cert_file", f"no certificate and its key, without password: {_reason(error)}")
    try:
        if tls.client_ca_file:
            context.load_verify_locations(folder / tls.client_ca_file)
    except (ssl.SSLError, ValueError) as error:
        _add(document, "client_ca_file", f"no certificates: {_reason(error)}")
    context.verify_mode = CLIENTS[tls.client_auth_type]
    context.minimum_version, context.maximum_version = VERSIONS[tls.min_version], VERSIONS[tls.max_version]
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.cipher_suites:
        context.set_ciphers(":".join(dict.fromkeys(SUITES[each] for each in tls.cipher_suites)))
    return context


def _contradictions(tls: TlsServer) -> Iterator[tuple[str, str]]:
    if tls.client_auth_type != "NoClientCert" and not tls.client_ca_file:
        yield "client_auth_type", "needs client_ca_file: who signs the clients' certificates?"
    if tls.client_auth_type == "NoClientCert" and tls.client_ca_file:
        yield "client_ca_file", "has no effect without client_auth_type: RequireAndVerifyClientCert"
    if tls.client_allowed_sans and tls.client_auth_type != "RequireAndVerifyClientCert":
        yield "client_allowed_sans", "needs client_auth_type: RequireAndVerifyClientCert"
    if tls.min_version > tls.max_version:
        yield "min_version", f"is above max_version, {tls.max_version}"


def _opens(tls: TlsServer, key: str, folder: Path, document: Document) -> bool:
    name = getattr(tls, key)
    try:
        if name:
            (folder / name).open("rb").close()
    except OSError as error:
        _add(document, key, f"cannot read {folder / name}: {error.strerror}")
        return False
    return True


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")


def _add(document: Document, key: str, message: str) -> None:
    path: Any = document.known(("tls_server_config", key))
    document.add(message, ("tls_server_config", key), document.lines[path])
