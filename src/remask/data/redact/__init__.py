"""Find secrets and personal data in text and replace them by placeholders."""
