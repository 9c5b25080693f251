"""Task heads: one file a head."""
