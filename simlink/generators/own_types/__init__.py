"""Generators from the user's own types: Python's classes, Protobuf messages, JSON Schema and Avro."""
