"""The shared floor: settings, tokens, errors, transactions, outbox, broker, blobs, lifecycle.

Knows no service. Import its modules one by one; this package holds nothing itself.
"""
