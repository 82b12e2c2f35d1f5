"""Modules that only ``deliver`` runs."""
