"""Random geometry, color changes and the camera of training samples."""
