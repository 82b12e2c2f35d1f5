"""What only ``deliver`` runs."""
