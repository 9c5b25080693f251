"""Export models to ONNX and torch.export, and compare them with the original."""
