"""The boundary F-measure of stored maps."""
