"""worker: owns nothing; carries jobs out.

Called by ops (WorkerService) and rung by doorbells from the broker. Calls enqueue
(ExecutionService), assets (AssetsBackendService), the blob store by blob_url, and the generator.
"""
