"""Mutation testing: one small fault after the other in a module, and do its tests see it?

Ours, since the usual tools start a process per fault, import everything again and run whole
suites. Here a process that has imported what is not ours forks for each fault, and runs the tests
that reach the faulty statement, those that found most first.
"""
