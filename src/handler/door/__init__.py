"""What only ``receive`` runs."""
