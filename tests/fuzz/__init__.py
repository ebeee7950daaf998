"""Calls and pictures nobody would make on purpose, against all services; see __main__."""
