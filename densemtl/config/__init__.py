"""Configuration of experiments: sections, constraints, YAML files, validation and JSON schema."""
