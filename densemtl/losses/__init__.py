"""Pure loss functions on (logits, target, valid)."""
