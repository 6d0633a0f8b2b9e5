"""Where the data of tasks comes from: generated, brought by packages, or on a user's disk. NumPy alone."""
