"""packager: owns archives, the zips of jobs' images. Database `packager`; the bytes are assets'.

Called by the gateway, the CLI and grpcurl (PackagerService), and by enqueue's `job.ended`. Calls
assets (ResolveImages, BeginArchive, StoreArchive, ResolveArchive) and enqueue (GetJobOutputs,
RecordArchive); reads and writes blobs directly, by blob_url.
"""
