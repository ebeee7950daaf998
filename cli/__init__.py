"""The `contentshop` command: a plain client of the services, and `up`, which runs them all.

One module per noun. Modules with a command in them import only typer at their top; what is
slow to import (gRPC, rich, the services) is imported inside the command that needs it.
"""
