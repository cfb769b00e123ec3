"""Serializers: records ↔ bytes, whole blocks at a time."""
