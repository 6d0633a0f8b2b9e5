"""Many training runs at a time on one device: candidates × learning rates × seeds in one loop."""
