"""Fixtures that several rooms need."""
