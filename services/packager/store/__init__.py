"""Every SQL statement of the packager, by noun. Functions take a Tx, never commit."""
