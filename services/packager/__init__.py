"""packager: owns archives: zips of the images of jobs, batches and folders. The bytes are assets'.

Called by the gateway, the CLI and grpcurl (PackagerService), and by enqueue's `job.ended`. Calls
assets (ResolveImages, ListFolderImages, BeginArchive, StoreArchive, ResolveArchive) and enqueue
(GetJobOutputs, GetBatchOutputs, RecordArchive); reads and writes blobs directly, by blob_url.
Database `packager`.
"""
