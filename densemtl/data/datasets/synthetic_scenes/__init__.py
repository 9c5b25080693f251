"""Procedural indoor scenes, ray-cast in numpy, with exact labels of all six tasks.

World axes are the axes of an upright camera: x right, y down, z forward; the floor is y = 0.
"""
