"""The whole model: normalize, pad, predict and crop."""
