"""Predictions to look at and to go on with: panels, films, maps in files, point clouds."""
