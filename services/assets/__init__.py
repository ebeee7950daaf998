"""assets: owns every byte: uploads, generated images, archives, and the pins on them.

Database `assets` and one blob store. Called by the gateway, the CLI and grpcurl (AssetsService),
by enqueue, workers and the packager (AssetsBackendService). Calls nobody. Reads the job events of
enqueue from the broker: pins last until a job has ended, outputs become visible with its end.
"""
