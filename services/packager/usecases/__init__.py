"""The verbs of the packager: each opens one transaction, and declares what it needs."""
