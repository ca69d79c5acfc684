"""What must hold, a file a component."""
