"""What `heliostat init` writes: for each kind, a commented spec (`KIND.yaml`) and a sample of data that fits it."""
