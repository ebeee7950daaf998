"""Every SQL statement of the packager: functions that take a Tx and never commit."""
