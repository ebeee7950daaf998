"""`python health.py HOST:PORT CA CERT KEY`: exit code 0 when the server there says SERVING.

The last three are PEM files for mutual TLS.
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

target, ca, certificate, key = sys.argv[1:]
tls = grpc.ssl_channel_credentials(*(Path(one).read_bytes() for one in (ca, key, certificate)))
with grpc.secure_channel(target, tls) as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)
