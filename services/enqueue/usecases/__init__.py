"""The verbs of enqueue: each opens one transaction, and declares what it needs."""
