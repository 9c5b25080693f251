"""Export of models to ONNX and torch.export, with a comparison to the original model."""
