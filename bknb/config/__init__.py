"""Where settings come from: the state folder and, later, configuration files."""
