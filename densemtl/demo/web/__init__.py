"""Serve a page: drop an image, see the prediction of every task, read values under the pointer."""
