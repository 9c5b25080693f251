"""The experiment file: its sections, their constraints, YAML, validation and JSON schema."""
