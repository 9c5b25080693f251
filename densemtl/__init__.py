"""densemtl: dense-prediction multi-task learning on any timm backbone."""

__version__ = "0.1.0"
