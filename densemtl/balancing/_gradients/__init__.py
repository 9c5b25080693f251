"""Gradients of several tasks: collecting, comparing and combining them."""
