"""The command against a server with TLS, by explicit address."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.auth import mint_user_token
from libs.common.broker_memory import MemoryBroker
from libs.common.clock import SystemClock
from libs.common.ids import SystemIds
from services.enqueue import app
from services.enqueue.settings import Settings
from tests.support.house import contentshop

SECRET = "s" * 32


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, key_pem


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """host:port and the CA to check it by."""
    certificate, key = _self_signed(tmp_path)
    settings = Settings(
        listen="127.0.0.1:0",
        tls_cert=str(certificate),
        tls_key=str(key),
        auth_secret=SECRET,
        service_secret=SECRET,
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'enqueue.sqlite'}",
    )
    app.migrate(settings)
    broker = MemoryBroker(clock=SystemClock(), ids=SystemIds())
    await broker.start()
    running = app.build(settings, broker=broker)
    await running.start()
    yield f"127.0.0.1:{running.port}", certificate
    await running.stop()
    await broker.close()


async def test_jobs_over_tls(tls_server: tuple[str, Path]) -> None:
    target, ca = tls_server
    token = mint_user_token(
        secret=SECRET, issuer="contentshop", team="demo", scopes=["team"], clock=SystemClock()
    )
    env = {"CONTENTSHOP_ENQUEUE": target, "CONTENTSHOP_TOKEN": token}
    ran = await contentshop("jobs", "--json", env={**env, "CONTENTSHOP_CA": str(ca)})
    assert ran.code == 0, ran
    assert ran.json() == {"jobs": [], "more": False}
    assert (await contentshop("jobs", env=env)).code == 5
