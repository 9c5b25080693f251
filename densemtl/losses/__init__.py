"""Loss functions of (logits, target, valid)."""
