"""Every SQL statement of assets, by noun. Functions take a Tx, never commit."""
