"""Folders of the driver's machine for workers that do not see them, over Ray; see docs/decisions/0015."""
