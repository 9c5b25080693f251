"""Procedural indoor scenes, rendered by ray casting in NumPy, with exact labels of all six tasks.

World axes are the axes of an upright camera: x right, y down, z forward; the floor is y = 0.
"""
