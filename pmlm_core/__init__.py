"""The science of pmlm: everything that works on a machine without Ray and MLflow."""

__version__ = "0.1.0"
