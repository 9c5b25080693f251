"""Demonstration of trained models: panels, videos, raw maps, point clouds and a web page."""
