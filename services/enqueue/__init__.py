"""enqueue: owns jobs, and is the only writer of their state. Database `enqueue`.

Called by the gateway, the CLI and grpcurl (EnqueueService), by workers and the packager
(ExecutionService). Calls assets (ResolveImages). Publishes doorbells to workers and job events to
assets and the packager, through its outbox.
"""
