"""`--web.config.file`: what is understood, and every mistake with its place."""

import ssl
import subprocess
from pathlib import Path

import pytest
from servers import Certificates, make_certificates

from exporters.strictyaml import BadInput
from exporters.webconfig import load, read_token

HASH = "$2b$04$CwTycUXWue0Thq9StjUM0uJ8.SVYHwvwEVHbAOX0iPjFtGsCH0FVS"
MUTUAL = """
tls_server_config:
  cert_file: good.pem
  key_file: key
  client_ca_file: ca.pem
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [prometheus.example, "FD00::0:1", 10.0.0.7]
  min_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
http_server_config:
  http2: false
  headers: {X-Frame-Options: deny}
basic_auth_users:
  ann: %s
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    for name, lock in (("other.key", ()), ("locked.key", ("-aes256", "-pass", "pass:xyzzy"))):
        command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name, *lock]
        subprocess.run(command, cwd=made.folder, check=True, capture_output=True)
    return made


def test_all_that_is_understood(certificates: Certificates) -> None:
    path = certificates.folder / "web.yml"
    path.write_text(MUTUAL % HASH)
    config = load(path)
    assert config.tls
    assert (config.tls.verify_mode, config.tls.minimum_version) == (ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3)
    assert "ECDHE-RSA-AES128-GCM-SHA256" in {each["name"] for each in config.tls.get_ciphers()}
    assert config.sans == {"prometheus.example", "fd00::1", "10.0.0.7"}
    assert (config.users, config.headers) == ({"ann": HASH.encode()}, {"X-Frame-Options": "deny"})
    assert {each.name for each in config.files} == {"web.yml", "good.pem", "key", "ca.pem"}


def test_an_empty_file_is_plain_http(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("")
    config = load(tmp_path / "web.yml")
    assert (config.tls, config.users) == (None, {})


FILES = "tls_server_config: {cert_file: good.pem, key_file: key"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tls_server_config: {}", "web.yml:1: tls_server_config.cert_file: required, but missing"),
        ("a: 1\nbasic_auth_user: {}", "web.yml:2: basic_auth_user: unknown key"),
        (f"{FILES}, curve_preferences: [X25519]}}", "tls_server_config.curve_preferences: unknown key"),
        (f"{FILES}, min_version: TLS10}}", "tls_server_config.min_version: Input should be 'TLS12' or 'TLS13'"),
        (f"{FILES}, min_version: TLS13, max_version: TLS12}}", "min_version: is above max_version, TLS12"),
        (f"{FILES}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}", "cipher_suites[0]: not supported"),
        (f"{FILES}, client_auth_type: RequireAnyClientCert}}", "tls_server_config.client_auth_type: Input should be"),
        (f"{FILES}, client_auth_type: RequireAndVerifyClientCert}}", "client_auth_type: needs client_ca_file"),
        (f"{FILES}, client_ca_file: ca.pem}}", "client_ca_file: has no effect without client_auth_type"),
        (f"{FILES}, client_allowed_sans: [a]}}", "client_allowed_sans: needs client_auth_type"),
        ("tls_server_config: {cert_file: no.pem, key_file: nor}", "no.pem: No such file or directory"),
        ("tls_server_config: {cert_file: no.pem, key_file: nor}", "nor: No such file or directory"),
        ("tls_server_config: {cert_file: good.pem, key_file: other.key}", "cert_file: no certificate and its key"),
        ("tls_server_config: {cert_file: good.pem, key_file: locked.key}", "cert_file: no certificate and its key"),
        (
            f"{FILES}, client_ca_file: key, client_auth_type: RequireAndVerifyClientCert}}",
            "client_ca_file: no certificates",
        ),
        ("http_server_config: {http2: true}", "http_server_config.http2: Input should be False"),
        ("http_server_config: {headers: {Server: x}}", "header 'Server' cannot be set"),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}", "X-Frame-Options cannot be 'maybe'"),
        ("basic_auth_users: {ann: secret}", "basic_auth_users.ann: want a bcrypt hash of a cost from 4 to 14"),
        (f"basic_auth_users: {{ann: {HASH.replace('$04$', '$31$')}}}", "want a bcrypt hash of a cost"),
        ("rate_limit: {interval: 1s}", "rate_limit: unknown key"),
    ],
)
def test_mistakes_and_their_places(certificates: Certificates, text: str, wrong: str) -> None:
    folder = certificates.folder
    (folder / "web.yml").write_text(text)
    with pytest.raises(BadInput) as caught:
        load(folder / "web.yml")
    assert wrong in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*no\.yml: No such file"):
        load(tmp_path / "no.yml")


def test_a_file_without_end_is_none() -> None:
    for read in (load, lambda path: read_token(path, "here")):
        with pytest.raises(BadInput, match=r"/dev/zero is longer than 16777216 characters"):
            read(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["", " \n", "two words", "umläut"])
def test_a_token_is_one_printable_word(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="a token is not empty"):
        read_token(tmp_path / "token", "here")
