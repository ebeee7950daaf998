"""What contentshop costs, against what this machine can do: `python -m tests.benchmarks --help`.

Every measure runs real service processes on private servers and takes turns with its yardstick.
"""
