"""The whole mesh on one machine: embedded databases and every service as a process of its own."""
