"""Web page that shows predictions of an uploaded image and their values under the pointer."""
