"""Secrets and personal details: how they look, and how they are replaced."""
