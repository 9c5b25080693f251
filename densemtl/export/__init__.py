"""Trained networks for other runtimes: ONNX and torch.export, each held against the original."""
