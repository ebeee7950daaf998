"""The verbs of assets: each opens one transaction, and declares what it needs."""
