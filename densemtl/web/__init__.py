"""A page in the browser: drop an image, see every task, read values under the pointer."""
