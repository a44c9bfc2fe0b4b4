"""imagecached: container images ready in milliseconds."""

__version__ = "0.1.0"
