"""Trained networks on images of any size and form: fitted, tiled, seen in several views, merged."""
