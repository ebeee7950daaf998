"""Every SQL statement of enqueue, by noun. Functions take a Tx, never commit."""
