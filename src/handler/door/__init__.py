"""Modules that only ``receive`` runs."""
