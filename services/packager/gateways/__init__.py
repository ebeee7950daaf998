"""What the packager calls: assets, enqueue and the blob store; gRPC stops here."""
