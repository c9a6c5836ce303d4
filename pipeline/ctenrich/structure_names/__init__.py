"""Standard names of structures (TG-263): propose them by spelling and geometry, check them, apply those accepted."""
