"""The command line: one small file per verb. Each parses, calls one function of the package, and renders the result."""
