"""What the worker does with a job."""
