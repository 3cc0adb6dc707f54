"""What "better" means: rows of the user's data, metrics, and how a prompt does on them."""
