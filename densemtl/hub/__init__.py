"""Save, upload and download trained models."""
