"""TLS and mTLS by settings, and what the logs may say."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common import logs
from libs.common.clock import SystemClock
from libs.common.grpc_client import ClientTls, open_channel
from tests.integration.enqueue.front_door import (
    ENQUEUE,
    EXECUTION,
    bearer,
    forged,
    get_job,
    headers_for,
    refusal,
    status_of,
    user_claims,
)
from tests.integration.enqueue.house import SECRET, USER_SECRET, generation, open_house
from tests.support.databases import DatabaseUrls, sqlite_database

GET = f"{ENQUEUE}GetJob"


@dataclass
class Authority:
    """A certificate authority in a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = self._builder(self.subject, self.key.public_key())
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self.path = self._write("ca", certificate.add_extension(ca, critical=True))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = self._builder(subject, key.public_key()).add_extension(
            x509.SubjectAlternativeName([address]), critical=False
        )
        key_path = self.folder / f"{self.name}-{name}.key"
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return self._write(name, builder), key_path

    def _builder(self, subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        now = SystemClock().now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
        )

    def _write(self, name: str, builder: x509.CertificateBuilder) -> Path:
        path = self.folder / f"{self.name}-{name}.pem"
        signed = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path


async def _code(port: int, tls: ClientTls | None) -> str:
    channel = open_channel(f"127.0.0.1:{port}", tls)
    try:
        return (await status_of(channel, GET, get_job(), headers_for(GET))).code().name
    finally:
        await channel.close()


async def test_tls_and_mutual_tls_by_settings(tmp_path: Path) -> None:
    ours, evil = Authority(tmp_path, "ours"), Authority(tmp_path, "evil")
    certificate, key = ours.issue("server")
    client, client_key = ours.issue("client")
    strange, strange_key = evil.issue("client")
    urls = sqlite_database("enqueue", tmp_path)
    tls = {"TLS_CERT": str(certificate), "TLS_KEY": str(key)}
    async with open_house(urls, **tls) as house:
        assert await _code(house.app.port, ClientTls(ours.path)) == "NOT_FOUND"
        assert await _code(house.app.port, None) == "UNAVAILABLE", "plaintext"
        assert await _code(house.app.port, ClientTls(evil.path)) == "UNAVAILABLE", "wrong server"
    async with open_house(urls, **tls, TLS_CLIENT_CA=str(ours.path)) as house:
        port = house.app.port
        assert await _code(port, ClientTls(ours.path, client, client_key)) == "NOT_FOUND"
        assert await _code(port, None) == "UNAVAILABLE", "plaintext"
        assert await _code(port, ClientTls(ours.path)) == "UNAVAILABLE", "no certificate"
        wrong = ClientTls(ours.path, strange, strange_key)
        assert await _code(port, wrong) == "UNAVAILABLE", "another authority's"


# Logs.


@contextmanager
def production_logs() -> Iterator[io.StringIO]:
    """Everything that is logged, from debug up, as in production."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        logs.configure("tests", level="debug", json=True)
        try:
            yield stream
        finally:
            logs.configure("tests", level="warning", json=False)


CANARY = "canary-4e1d"
NASTY = f'{CANARY}\r\n{{"event":"forged"}}\x1b[31m\x07'


async def test_logs_are_single_json_lines_and_tell_no_secret(urls: DatabaseUrls) -> None:
    token = forged(user_claims(sub=CANARY))
    with production_logs() as captured:
        await _work_and_mischief(urls, token)
    text = captured.getvalue()
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict), line
        assert len(line) < 5_000
    assert text.count('"event": "rpc.done"') > 5
    for secret in (CANARY, "\x1b", SECRET, USER_SECRET, token.split(".")[1], "postgresql+"):
        assert secret not in text, secret


async def _work_and_mischief(urls: DatabaseUrls, token: str) -> None:
    async with open_house(urls) as house:
        team = house.team()
        channel = team.client.channel
        prompt = f"a red {CANARY} dress"
        job = await team.generate(
            input={"custom_instructions": prompt},
            labels={"product": CANARY},
            product_images=[{"upload_url": f"/api/uploads/1/file?{CANARY}"}],
        )
        await house.worker(f"worker {CANARY}").make_all(job.id)
        enqueue = f"{ENQUEUE}EnqueueGeneration"
        for request in (
            generation(schema_key=NASTY),
            generation(labels={"variant": NASTY}),
            generation(input={NASTY: NASTY}),
            generation(product_images=[{"upload_url": f"http://user:{NASTY}@host/"}]),
            generation(request_id=NASTY),
        ):
            await refusal(channel, enqueue, request, bearer(token))
        await refusal(channel, GET, get_job(), bearer(f"{token[:-5]}{CANARY}"))
        await refusal(channel, enqueue, b"\xff" + NASTY.encode(), bearer(token))
        for headers in (
            (*bearer(token), ("x-request-id", CANARY), ("user-agent-more", "x" * 5_000)),
            (*bearer(token), ("traceparent", CANARY)),
        ):
            await refusal(channel, GET, get_job(99), headers)
        await status_of(channel, f"/{CANARY}/{CANARY}", b"", bearer(token))
        claim = f"{EXECUTION}ClaimJob"
        await refusal(channel, claim, NASTY.encode(), headers_for(claim))
        await _with_a_long_user_agent(house.app.port)


async def _with_a_long_user_agent(port: int) -> None:
    agent = ("grpc.primary_user_agent", "a" * 1_000_000)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[agent]) as channel:
        try:
            async with asyncio.timeout(15):
                error = await status_of(channel, GET, get_job(), headers_for(GET))
        except TimeoutError as late:
            raise AssertionError("a long user agent hangs") from late
        assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.real
async def test_a_fault_logs_where_and_no_values(postgres_templates: Any) -> None:
    urls = postgres_templates.database("enqueue")
    owner = sa.create_engine(urls.owner, poolclass=sa.NullPool)
    with owner.begin() as connection:
        # Every row is wrong now: PostgreSQL's words for that quote the whole row.
        connection.execute(sa.text("ALTER TABLE jobs ADD CHECK (priority > 1000)"))
    with production_logs() as captured:
        async with open_house(urls) as house:
            channel = house.team().client.channel
            method = f"{ENQUEUE}EnqueueGeneration"
            request = generation(input={"custom_instructions": CANARY})
            got = await refusal(channel, method, request, headers_for(method))
            assert (got.code, got.message) == ("INTERNAL", "internal error")
    text = captured.getvalue()
    assert CANARY not in text
    faults = [json.loads(line) for line in text.splitlines() if "rpc.fault" in line]
    assert [fault["error"] for fault in faults] == ["IntegrityError"]
    assert "usecases/enqueueing.py" in faults[0]["exception"]
