"""What tests share: small worlds with a known answer, a loopback server, tiny checkpoints."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # the checkout
