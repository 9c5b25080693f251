"""Blocks that decoders and heads are built from."""
