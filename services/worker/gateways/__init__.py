"""What the worker calls: enqueue and assets; gRPC stops here."""
