"""Files of other tools, one file a format: which records are theirs, and what they say."""
