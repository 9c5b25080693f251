"""Decoders, one per file: complete multi-task architectures from the image to the logits."""
