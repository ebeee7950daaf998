"""A steady load for as long as it is told, and whether anything grows under it."""
