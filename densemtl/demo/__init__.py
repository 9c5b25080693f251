"""Show predictions: panels, videos, raw maps, point clouds and a web page."""
